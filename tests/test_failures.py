"""What goes wrong with one pair, or beside the run, costs no more than that."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from assd.methods.score_distillation import ScoreDistillation
from assd.runs.checkpoint import read_checkpoint
from evaluation.scores import read_scores
from tests.commands import PAIR, QUICK, SOURCE, TARGET, Outcome, edit_folders, record, steps, write_clip

pytestmark = pytest.mark.end_to_end


def test_out_of_memory_costs_one_pair(
    tmp_path: Path, assd: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is full in the middle of a pair: that pair failed, with advice, and the next one is edited."""
    edit, calls = ScoreDistillation.__call__, []

    def full_once(method: ScoreDistillation, *args: object, **kwargs: object) -> list:
        calls.append(args)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return edit(method, *args, **kwargs)

    monkeypatch.setattr(ScoreDistillation, "__call__", full_once)
    outcome = assd(f"output={tmp_path}", "dataset.limit=2", "steps.distillation=1")
    assert outcome.code != 0
    assert outcome.says(
        "1 of 2 pairs could not be edited", "CUDA out of memory", "Lower targets_together, model.num_frames"
    )
    assert [record(folder)["status"] for folder in edit_folders(tmp_path)] == ["failed", "finished"]


def test_a_broken_video_does_not_stop_the_others(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """Of two videos one is broken: the other is finished, the reason is kept, the end is no success."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "broken.mp4").write_text("no film")
    write_clip(videos / "good.mp4")
    rows = [f"broken.mp4,{SOURCE},{TARGET}", f"good.mp4,{SOURCE},{TARGET}"]
    (videos / "prompts.csv").write_text("\n".join(["video,source_prompt,target_prompt", *rows]) + "\n")
    overrides = [f"output={tmp_path / 'out'}", "dataset=folder", f"dataset.path={videos}", "steps.distillation=1"]
    outcome = assd(*overrides)
    assert outcome.code != 0
    assert outcome.says("1 of 2 pairs could not be edited (01-broken)", str(videos / "broken.mp4"))
    broken, good = edit_folders(tmp_path / "out")
    assert record(good)["status"] == "finished"
    assert record(broken)["status"] == "failed"
    assert str(videos / "broken.mp4") in record(broken)["reason"]
    kept = good.joinpath("edit.json").stat().st_mtime_ns

    write_clip(videos / "broken.mp4")  # repaired: the same command does what is left
    outcome = assd(*overrides)
    assert outcome.code == 0, outcome.text
    assert record(broken)["status"] == "finished"
    assert good.joinpath("edit.json").stat().st_mtime_ns == kept


def test_a_shard_without_pairs_has_nothing_to_do(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """The last jobs of an array that is larger than the dataset end well, say so, and leave the others' run alone."""
    outcome = assd(f"output={tmp_path}", "dataset.limit=2", "dataset.shard=3/3")
    assert outcome.code == 0, outcome.text
    assert outcome.says("dataset.shard=3/3 has no pairs")
    assert not edit_folders(tmp_path)


def test_divergence_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """A gradient that is no number ends with pair, step and t; the checkpoint before it and its curves are kept."""
    options = ["dataset.limit=1", "steps.distillation=5", "method.checkpoint_every=1", "optimizer.lr=1e30"]
    outcome = assd(f"output={tmp_path}", *options)
    assert outcome.code != 0
    assert outcome.says(PAIR)
    assert re.search(r"gradientnormis(nan|inf)atstep[1-4],t=\d+", "".join(outcome.text.split()))
    assert "Traceback" not in outcome.text
    (folder,) = edit_folders(tmp_path)
    assert record(folder)["status"] == "failed"
    assert PAIR in record(folder)["reason"]
    kept = read_checkpoint(folder / "checkpoint.safetensors")
    assert steps(folder) == list(range(kept["step"]))
    assert kept["step"] >= 1
    assert kept["Z"].isfinite().all()


def test_curves_cut_in_the_middle_of_a_line_are_mended(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """Where a run was stopped while it wrote a curve, the half line is dropped and every step is there once."""
    options = ["dataset.limit=1", "steps.distillation=3", "method.checkpoint_every=1"]
    assert assd(f"output={tmp_path}", *options, "optimizer.lr=1e30").code != 0
    (folder,) = edit_folders(tmp_path)
    with (folder / "steps.jsonl").open("a") as file:
        file.write('{"step": 1, "t": 45')
    outcome = assd(f"output={tmp_path}", *options, "optimizer.lr=1e30")  # goes on, to diverge at the same step
    assert outcome.says("gradient norm is", PAIR)
    assert steps(folder) == [0]


def test_a_dead_server_does_not_stop_a_run(
    tmp_path: Path, assd: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, read_back: Callable[[Path], dict]
) -> None:
    """W&B online with a server that is not there: the run is a success and its curves and scores stay in a file."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    online = ["tracking.mode=online", "tracking.init_timeout=2", "tracking.every=1"]
    outcome = assd(f"output={tmp_path}", *QUICK, *online)
    assert outcome.code == 0, outcome.text
    (folder,) = edit_folders(tmp_path)
    kept = read_back(folder.parent.parent)
    (value,) = read_scores(folder).query("video == 'edited'").value
    assert [kept["summary"][key] for key in kept["summary"] if key.startswith("mean/edited/")] == pytest.approx([value])
    assert kept["exit"] == 0
