"""Bad input is one sentence, whatever it is; most of it is given within this process, whose imports are paid once."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from assd.run import main
from tests.commands import QUICK, Outcome, own_video, start, wait, write_clip

pytestmark = pytest.mark.end_to_end

BAD_INPUT = {
    "missing file": (own_video(Path("none.mp4")), ["none.mp4 does not exist"]),
    "empty target prompt": (own_video(Path("{clip}"), target=""), ["prompt is empty"]),
    "empty source prompt": (own_video(Path("{clip}"), source=""), ["prompt is empty"]),
    "unknown word": (own_video(Path("{clip}"), target="a red zebra"), ["'zebra'", "Its words are:", "square", "snow"]),
    "lambda above 1": (["attention.lam=1.5"], ["lam", "[0, 1]", "1.5"]),
    "lambda below 0": (["attention.lam=-0.1"], ["lam", "[0, 1]", "-0.1"]),
    "gamma 0": (["loss.video.rule.gamma=0.0"], ["gamma must be in (0, 1]", "got 0"]),
    "negative tau": (["loss.video.rule.tau=-1.0"], ["tau must be >= 0", "got -1"]),
    "stride 0": (["loss.joint_guidance.stride=0"], ["stride must be >= 1", "got 0"]),
    "negative weight": (["loss.video.weight=-1.0"], ["weight must be >= 0", "got -1"]),
    "more layers than there are": (["attention.layers=9"], ["layers must be at most", "got 9"]),
    "no layers": (["attention.layers=0"], ["layers must be >= 1", "attention=none"]),
    "no steps": (["steps.distillation=0"], ["num_steps must be >= 1", "got 0"]),
    "no sampling": (["method=reconstruction", "method.inversion=true", "steps.sampling=0"], ["steps must be >= 1"]),
    "ablation of another method": (
        ["method=reconstruction", "+ablation=no_waf"],
        ["ablation=no_waf changes attention", "method=score_dist"],
    ),
    "loss of another method": (["method=reconstruction", "+ablation=sds"], ["ablation=sds", "method=score_dist"]),
    "key frames of another method": (
        ["method=reconstruction", "key_frame_stride=2"],
        ["key_frame_stride has no meaning", "Reconstruction"],
    ),
    "guidance of another method": (
        ["method=reconstruction", "guidance_scale=5"],
        ["guidance_scale has no meaning", "Reconstruction"],
    ),
    "group of another method": (["method=reconstruction", "loss=[assd]"], ["loss"]),
    "negative guidance": (["guidance_scale=-1"], ["guidance_scale (w) must be >= 0", "-1"]),
    "unknown method": (["method=nope"], ["nope", "reconstruction", "score_distillation"]),
    "never a checkpoint": (["method.checkpoint_every=0"], ["checkpoint_every must be >= 1"]),
    "timesteps beyond the schedule": (["method.timesteps=[50,1000]"], ["timesteps", "50, 1000"]),
    "timesteps reversed": (["method.timesteps=[900,50]"], ["timesteps", "900, 50"]),
    "unknown gradient scale": (["method.gradient_scale=big"], ["gradient_scale", "none, dds", "'big'"]),
    "unknown device": (["device=quantum"], ["device must be auto, cpu, cuda", "'quantum'"]),
    "model that isn't there": (["model.path=/nowhere"], ["/nowhere", "diffusers' layout"]),
    "no pairs": (["dataset.limit=0"], ["dataset.limit must be >= 1", "got 0"]),
    "size that the clips don't have": (["model.num_frames=16"], ["8 frames", "16"]),
    "unknown ablation": (["+ablation=nope"], ["nope", "no_waf", "video_dds", "full"]),
    "unknown dataset": (["dataset=nope"], ["nope", "folder", "shapes", "video"]),
    "added key": (["+foo=1"], ["foo"]),
    "key added to a group": (["+dataset.foo=1"], ["foo", "dataset"]),
    "unknown key": (["foo=1"], ["foo"]),
    "unknown key of a group": (["dataset.foo=1"], ["foo", "dataset"]),
    "seed that is no number": (["seed=many"], ["seed", "many"]),
    "own video without a path": (["dataset=video"], ["dataset.path"]),
    "folder without a table": (["dataset=folder", "dataset.path=/nowhere"], ["/nowhere/prompts.csv", "source_prompt"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_sentence(name: str, tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """Bad input ends with an exit code that is no success, names the argument, and shows no traceback."""
    overrides, parts = BAD_INPUT[name]
    if any("{clip}" in override for override in overrides):
        write_clip(tmp_path / "clip.mp4")
    overrides = [override.replace("{clip}", str(tmp_path / "clip.mp4")) for override in overrides]
    limit = [] if any("dataset=" in o or "dataset.limit" in o for o in overrides) else ["dataset.limit=1"]
    steps = [] if any("num_steps" in o for o in overrides) else ["steps.distillation=1"]
    outcome = assd(f"output={tmp_path / 'out'}", *limit, *steps, *overrides)
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    missing = [part for part in parts if not outcome.says(part)]
    assert not missing, outcome.text


def test_output_that_cannot_be_written_is_refused(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """An output folder below a regular file can't be made: the message names it."""
    (tmp_path / "file").write_text("in the way")
    outcome = assd(f"output={tmp_path / 'file' / 'out'}", *QUICK)
    assert outcome.code != 0
    assert outcome.says(str(tmp_path / "file"))
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss.video.rule.gamma=0"], "gamma must be in (0, 1], the paper has 0.67; got 0"),
        (["method=reconstruction", "method.network_time=now"], "network_time must be one of source, target; got 'now'"),
    ],
)
def test_bad_input_is_one_sentence_to_a_shell(tmp_path: Path, overrides: list[str], said: str) -> None:
    """A process of its own, without type checks, ends with exit code 1, and its last line begins with `error:`."""
    outcome = wait(start(tmp_path, *QUICK, *overrides))
    assert outcome.code == 1
    assert "Traceback" not in outcome.text
    lines = [line for line in outcome.text.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert said in lines[-1]


def test_a_traceback_can_be_asked_for(
    assd: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HYDRA_FULL_ERROR=1 gives the exception itself."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["assd", f"output={tmp_path}", "foo=1"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="foo"):
        main()
