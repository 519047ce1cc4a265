"""The command line from end to end: what a run leaves behind, how it goes on, and what it says about bad input.

Bits are compared between processes, as they are for a person; most bad input is given within this process, whose
imports are paid once.
"""

import html
import importlib.metadata
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

from assd.data.video import to_bytes, write_video
from assd.methods.score_distillation import ScoreDistillation
from assd.run import main
from assd.shapes.world import Clip, render
from evaluation import intervals
from evaluation.comparison import collect, failures, summarize
from evaluation.scores import read_scores

ROOT = Path(__file__).parent.parent
PAIR = "01-black-to-green"
STEPS = 12
QUICK = ["dataset.limit=1", "method.num_steps=2", "method.checkpoint_every=1"]
LONG = ["dataset.limit=1", f"method.num_steps={STEPS}", "method.checkpoint_every=1"]
LIGHT = ["tracking.mode=disabled", "metric=[clip_text]"]  # where a test is not about them
CLIP = Clip("red", "circle", "right", "snow", radius=0.33, x=0.0, y=0.0, travel=0.6, texture=7)
SOURCE, TARGET = "a red circle moving right over snow", "a blue circle moving right over snow"


class Outcome(NamedTuple):
    """How a command ended, and all that it printed."""

    code: int
    text: str

    def says(self, *parts: str) -> bool:
        """Whether all of these were printed, wherever lines were broken."""
        printed = "".join(self.text.split())
        return all("".join(part.split()) in printed for part in parts)


def command(output: Path, *overrides: str) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "assd.run", *overrides, f"output={output}", "device=cpu", *LIGHT]


def start(output: Path, *overrides: str) -> subprocess.Popen:
    """Starts a run."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command(output, *overrides), cwd=ROOT, env=environment, **streams)


def wait(process: subprocess.Popen) -> Outcome:
    """The end of a run."""
    text, _ = process.communicate(timeout=900)
    return Outcome(process.returncode, text)


def edit_folders(output: Path) -> list[Path]:
    """The folder of the first pair in each run below `output`."""
    return sorted(output.glob("*/edits/*"))


def record(folder: Path) -> dict:
    """edit.json."""
    return json.loads((folder / "edit.json").read_text())


def steps(folder: Path) -> list[int]:
    """The steps in steps.jsonl, in their order."""
    return [json.loads(line)["step"] for line in (folder / "steps.jsonl").read_text().splitlines()]


def latents(folder: Path) -> bytes:
    """The bits of the result."""
    return (folder / "latents.safetensors").read_bytes()


@pytest.fixture
def assd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Callable[..., Outcome]]:
    """The command line within this process: `assd("seed=1", ...)`; an unexpected exception is one here too.

    Without tracking and with one metric, unless it is to be `full`.
    """
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def call(*overrides: str, full: bool = False) -> Outcome:
        GlobalHydra.instance().clear()
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["assd", "device=cpu", *([] if full else LIGHT), *overrides])
        code, last_words = 0, ""
        try:
            main()
        except SystemExit as end:
            if isinstance(end.code, str):  # what Python prints on leaving
                code, last_words = 1, end.code
            else:
                code = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(code, printed.out + printed.err + last_words)

    yield call
    GlobalHydra.instance().clear()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The output folders of the same command, run twice, each in a process of its own."""
    outputs = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for process in [start(output, *LONG) for output in outputs]:
        outcome = wait(process)
        assert outcome.code == 0, outcome.text
    return outputs


def write_clip(path: Path) -> Path:
    """An mp4 of 12 frames of the embedded world, as a person might bring one."""
    frames, _ = render(CLIP)
    frames = torch.cat([frames, frames[-1:].expand(4, -1, -1, -1)])
    write_video(path, to_bytes(frames), 8.0)
    return path


def own_video(path: Path, source: str = SOURCE, target: str = TARGET) -> list[str]:
    """The overrides that edit one's own video."""
    return [
        "dataset=video",
        f"dataset.path={path}",
        f"dataset.source_prompt={source}",
        f"dataset.target_prompt={target}",
    ]


def test_a_run_leaves_every_promised_file(two_runs: tuple[Path, Path]) -> None:
    """What the run directory's docstring lists, no half-written file and no checkpoint."""
    (folder,) = edit_folders(two_runs[0])
    run = folder.parent.parent
    assert run.name == f"method.num_steps={STEPS}"
    assert folder.name == PAIR
    of_run = {"config.yaml", "environment.json", "scores.csv", "report.html", "overview.png", "edits"}
    assert of_run <= {path.name for path in run.iterdir()}
    videos = {f"{name}.mp4" for name in ("source", "edited", "comparison", "difference", "truth")}
    others = {"filmstrip.png", "steps.jsonl", "edit.json", "scores.csv", "latents.safetensors"}
    others |= {"edited.mkv", "reconstruction.mkv"}
    assert {path.name for path in folder.iterdir()} == videos | others
    assert all(path.stat().st_size > 0 for path in (*folder.iterdir(), *(run / name for name in of_run)))
    assert not list(run.rglob("*.partial*"))


def page_means(page: str) -> dict[tuple[str, str], float]:
    """The report's first table: the value of each cell, by row and column."""
    table = page[page.index("<table") : page.index("</table")]
    head, *rows = re.findall(r"<tr>.*?</tr>", table, re.S)
    columns = [html.unescape(name) for name in re.findall(r"<button[^>]*>(.*?)</button>", head)][1:]
    cells = {}
    for row in rows:
        (name,) = re.findall(r'<th scope="row">(.*?)</th>', row)
        for column, attributes in zip(columns, re.findall(r"<td([^>]*)>", row)):
            if value := re.search(r'data-value="([^"]+)"', attributes):
                cells[html.unescape(name), column[:-2]] = float(value[1])  # without the arrow
    return cells


def test_the_same_numbers_stand_everywhere(
    assd: Callable[..., Outcome], tmp_path: Path, read_back: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table, scores.csv, W&B's offline file and the report agree, cell by cell, on the edit and the unedited source."""
    monkeypatch.setenv("COLUMNS", "400")  # no name is broken over lines
    outcome = assd(f"output={tmp_path}", "dataset.limit=2", "method.num_steps=1", full=True)
    assert outcome.code == 0, outcome.text
    (run,) = (path.parent for path in tmp_path.glob("*/config.yaml"))
    scores = read_scores(run)
    wandb, on_page = read_back(run), page_means((run / "report.html").read_text(encoding="utf-8"))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.text.splitlines() if "│" in line]
    printed = {cells[0][:-2]: cells[1:] for cells in lines}
    columns = {"source": 0, "reconstruction": 1, "edited": 2}
    labels = {"source": "source, unedited", "reconstruction": "source, through the autoencoder"}
    assert wandb["exit"] == 0
    means = scores[scores.value.notna()].groupby(["video", "metric"]).value.mean()
    assert len(means["edited"]) >= 15
    for (video, metric), mean in means.items():
        assert wandb["summary"][f"mean/{video}/{metric}"] == pytest.approx(mean, rel=1e-6)
        assert printed[metric][columns[video]].startswith(intervals.number(mean))
        row = next(
            name for name, _ in on_page if name == labels.get(video) or (video == "edited" and "source" not in name)
        )
        assert on_page[row, metric] == pytest.approx(mean, rel=1e-6)


def test_a_metric_that_is_new_scores_finished_pairs_again(assd: Callable[..., Outcome], tmp_path: Path) -> None:
    """Other metrics under the same command: the edit stays, its scores are those asked for."""
    assert assd(f"output={tmp_path}", *QUICK).code == 0
    (folder,) = edit_folders(tmp_path)
    before = latents(folder)
    assert assd(f"output={tmp_path}", *QUICK, "tracking.mode=disabled", "metric=[psnr,flicker]", full=True).code == 0
    assert len(set(read_scores(folder).metric)) == 2
    assert latents(folder) == before


def test_a_finished_pair_says_so(two_runs: tuple[Path, Path]) -> None:
    """edit.json has the prompts, the seed, the time it took and `finished`; steps.jsonl every step once."""
    (folder,) = edit_folders(two_runs[0])
    edit = record(folder)
    assert edit["status"] == "finished"
    assert (edit["id"], edit["seed"]) == (PAIR, 0)
    assert edit["source_prompt"] == "a black circle moving right over brick"
    assert edit["target_prompt"] == "a green circle moving right over brick"
    assert edit["seconds"] > 0
    assert steps(folder) == list(range(STEPS))
    for line in (folder / "steps.jsonl").read_text().splitlines():
        curve = json.loads(line)
        assert 50 <= curve["t"] <= 949
        assert curve["gradient_norm"] > 0
        assert 0 <= curve["video.mask_coverage"] <= 1


def test_a_run_can_be_repeated_from_what_it_kept(two_runs: tuple[Path, Path]) -> None:
    """environment.json has the command, the versions and the device; config.yaml holds no interpolation any more."""
    run = edit_folders(two_runs[0])[0].parent.parent
    environment = json.loads((run / "environment.json").read_text())
    assert LONG[1] in environment["command"]
    assert environment["packages"]["torch"] == importlib.metadata.version("torch")
    assert environment["device"]["type"] == "cpu"
    assert "${" not in (run / "config.yaml").read_text()


def test_the_edit_moves_away_from_the_source(two_runs: tuple[Path, Path]) -> None:
    """The latents kept are the source's and the edited one's, of one shape, finite and different."""
    kept = load_file(edit_folders(two_runs[0])[0] / "latents.safetensors")
    assert kept.keys() == {"Z", "Z_ref"}
    assert kept["Z"].shape == kept["Z_ref"].shape
    assert kept["Z"].isfinite().all()
    assert not torch.equal(kept["Z"], kept["Z_ref"])


def test_the_same_command_gives_the_same_bits(two_runs: tuple[Path, Path]) -> None:
    """Two processes of the same command end with the same latents, to the bit."""
    (first,), (second,) = map(edit_folders, two_runs)
    assert latents(first) == latents(second)


def test_a_killed_run_ends_with_the_same_bits(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """After SIGKILL the same command goes on: kept steps stay, none is there twice, the bits are the same."""
    process = start(tmp_path, *LONG)
    deadline = time.monotonic() + 900
    curves = tmp_path / f"method.num_steps={STEPS}" / "edits" / PAIR / "steps.jsonl"
    while not (curves.exists() and curves.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert wait(process).code == -signal.SIGKILL
    before = curves.read_text().splitlines()
    assert 2 <= len(before) < STEPS
    assert not (curves.parent / "edit.json").exists()

    outcome = wait(start(tmp_path, *LONG))
    assert outcome.code == 0, outcome.text
    (folder,) = edit_folders(tmp_path)
    assert record(folder)["status"] == "finished"
    assert steps(folder) == list(range(STEPS))
    # its seconds tell a line that was kept from one that was written again; the last may not have reached a checkpoint
    assert curves.read_text().splitlines()[: len(before) - 1] == before[:-1]
    assert latents(folder) == latents(edit_folders(two_runs[0])[0])


def test_a_finished_pair_is_not_done_again(two_runs: tuple[Path, Path], assd: Callable[..., Outcome]) -> None:
    """The same command again touches no file of a finished pair, and says where the results are."""
    (folder,) = edit_folders(two_runs[1])
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    outcome = assd(f"output={two_runs[1]}", *LONG)
    assert outcome.code == 0, outcome.text
    assert outcome.says("finished", "overview.png")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_another_configuration_is_refused(two_runs: tuple[Path, Path], assd: Callable[..., Outcome]) -> None:
    """A run directory made with another configuration is left as it is, and the message says what differs."""
    (folder,) = edit_folders(two_runs[1])
    run = folder.parent.parent
    before = (run / "config.yaml").read_bytes(), latents(folder)
    outcome = assd(f"hydra.run.dir='{run}'", *LONG, "seed=3", "loss.video.rule.gamma=0.5")
    assert outcome.code != 0
    assert outcome.says("was made with another configuration", "seed: 0 -> 3", "rule.gamma: 0.67 -> 0.5", str(run))
    assert "Traceback" not in outcome.text
    assert ((run / "config.yaml").read_bytes(), latents(folder)) == before


def test_what_never_changes_a_result_may_differ(two_runs: tuple[Path, Path], assd: Callable[..., Outcome]) -> None:
    """More pairs, kept frames: the run directory is the same one, and what is finished stays."""
    (folder,) = edit_folders(two_runs[1])
    before = folder.joinpath("edit.json").stat().st_mtime_ns
    outcome = assd(f"output={two_runs[1]}", *LONG, "save_frames=true")
    assert outcome.code == 0, outcome.text
    assert edit_folders(two_runs[1]) == [folder]
    assert folder.joinpath("edit.json").stat().st_mtime_ns == before


def test_several_ablations_are_several_runs(tmp_path: Path) -> None:
    """-m edits once for each ablation, each in a run directory of its name, with results of its own."""
    outcome = wait(start(tmp_path, "-m", "+ablation=video_dds,no_waf", *QUICK))
    assert outcome.code == 0, outcome.text
    folders = edit_folders(tmp_path)
    names = [folder.parent.parent.name for folder in folders]
    assert len(folders) == 2
    assert "ablation=no_waf" in names[0]
    assert "ablation=video_dds" in names[1]
    first, second = (load_file(folder / "latents.safetensors") for folder in folders)
    assert torch.equal(first["Z_ref"], second["Z_ref"])
    assert not torch.equal(first["Z"], second["Z"])


def test_a_sweep_goes_on_after_a_job_that_fails(tmp_path: Path) -> None:
    """The first of two diverges: the second is done, the end is no success, and a table of both names the pair."""
    outcome = wait(start(tmp_path, "-m", "optimizer.lr=1e30,0.1", *QUICK))
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    failed, done = (folder.parent.parent for folder in sorted(edit_folders(tmp_path), reverse=True))
    scores = collect([failed, done])
    assert failures(scores) == [f"optimizer.lr=1e+30: no result for {PAIR}"]
    assert "optimizer.lr=0.1" in set(summarize(scores).method)


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
    outcome = assd(f"output={tmp_path}", "dataset.limit=2", "method.num_steps=1")
    assert outcome.code != 0
    assert outcome.says("1 of 2 pairs could not be edited", "CUDA out of memory", "fewer frames")
    assert [record(folder)["status"] for folder in edit_folders(tmp_path)] == ["failed", "finished"]


def test_ones_own_video_is_edited(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """dataset=video edits a file; frames are kept where asked for, and play as long as the source did."""
    path = write_clip(tmp_path / "snow.mp4")
    outcome = assd(f"output={tmp_path / 'out'}", *own_video(path), "method.num_steps=1", "save_frames=true")
    assert outcome.code == 0, outcome.text
    (folder,) = edit_folders(tmp_path / "out")
    assert folder.name == "snow"
    edit = record(folder)
    assert (edit["status"], edit["source_prompt"], edit["target_prompt"]) == ("finished", SOURCE, TARGET)
    assert edit["fps"] == pytest.approx(8 * 7 / 11)
    for name in ("source", "edited"):
        assert [path.name for path in sorted((folder / name).iterdir())] == [f"{i:05d}.png" for i in range(8)]


def test_a_broken_video_does_not_stop_the_others(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """Of two videos one is broken: the other is finished, the reason is kept, the end is no success."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "broken.mp4").write_text("no film")
    write_clip(videos / "good.mp4")
    rows = [f"broken.mp4,{SOURCE},{TARGET}", f"good.mp4,{SOURCE},{TARGET}"]
    (videos / "prompts.csv").write_text("\n".join(["video,source_prompt,target_prompt", *rows]) + "\n")
    overrides = [f"output={tmp_path / 'out'}", "dataset=folder", f"dataset.path={videos}", "method.num_steps=1"]
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


def test_divergence_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """A gradient that is no number ends with pair, step and t; the checkpoint before it and its curves are kept."""
    options = ["dataset.limit=1", "method.num_steps=5", "method.checkpoint_every=1", "optimizer.lr=1e30"]
    outcome = assd(f"output={tmp_path}", *options)
    assert outcome.code != 0
    assert outcome.says(PAIR)
    assert re.search(r"gradientis(nan|inf)atstep[1-4],t=\d+", "".join(outcome.text.split()))
    assert "Traceback" not in outcome.text
    (folder,) = edit_folders(tmp_path)
    assert record(folder)["status"] == "failed"
    assert PAIR in record(folder)["reason"]
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert steps(folder) == list(range(kept["step"]))
    assert kept["step"] >= 1
    assert kept["Z"].isfinite().all()


def test_curves_cut_in_the_middle_of_a_line_are_mended(tmp_path: Path, assd: Callable[..., Outcome]) -> None:
    """Where a run was stopped while it wrote a curve, the half line is dropped and every step is there once."""
    options = ["dataset.limit=1", "method.num_steps=3", "method.checkpoint_every=1"]
    assert assd(f"output={tmp_path}", *options, "optimizer.lr=1e30").code != 0
    (folder,) = edit_folders(tmp_path)
    with (folder / "steps.jsonl").open("a") as file:
        file.write('{"step": 1, "t": 45')
    outcome = assd(f"output={tmp_path}", *options, "optimizer.lr=1e30")  # goes on, to diverge at the same step
    assert outcome.says("gradient is", PAIR)
    assert steps(folder) == [0]


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
    "no steps": (["method.num_steps=0"], ["num_steps must be >= 1", "got 0"]),
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
    steps = [] if any("num_steps" in o for o in overrides) else ["method.num_steps=1"]
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


def test_bad_input_is_one_sentence_to_a_shell(tmp_path: Path) -> None:
    """A process of its own ends with exit code 1, and its last line is the one that begins with `error:`."""
    outcome = wait(start(tmp_path, *QUICK, "loss.video.rule.gamma=0"))
    assert outcome.code == 1
    assert "Traceback" not in outcome.text
    lines = [line for line in outcome.text.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "gamma must be in (0, 1]" in lines[-1]
    assert "got 0" in lines[-1]


def test_a_traceback_can_be_asked_for(
    assd: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HYDRA_FULL_ERROR=1 gives the exception itself."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["assd", f"output={tmp_path}", "foo=1"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="foo"):
        main()
