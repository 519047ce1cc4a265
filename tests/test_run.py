"""A run from end to end: what it leaves behind, and how the same command goes on.

Bits are compared between processes, as they are for a person.
"""

import html
import importlib.metadata
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from assd.data.video import read_video
from assd.runs.lock import one_writer
from evaluation import intervals
from evaluation.scores import read_scores
from tests.commands import PAIR, QUICK, Outcome, contents, edit_folders, latents, record, start, steps, wait

pytestmark = pytest.mark.end_to_end

STEPS = 12
LONG = ["dataset.limit=1", f"steps.distillation={STEPS}", "method.checkpoint_every=1"]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The output folders of the same command, run twice, each in a process of its own."""
    outputs = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for process in [start(output, *LONG) for output in outputs]:
        outcome = wait(process)
        assert outcome.code == 0, outcome.text
    return outputs


def test_a_run_leaves_every_promised_file(two_runs: tuple[Path, Path]) -> None:
    """What the run directory's docstring lists, no half-written file and no checkpoint."""
    (folder,) = edit_folders(two_runs[0])
    run = folder.parent.parent
    assert run.name == f"steps.distillation={STEPS}"
    assert folder.name == PAIR
    of_run = {"config.yaml", "environment.json", "scores.csv", "report.html", "overview.png", "edits"}
    assert of_run <= {path.name for path in run.iterdir()}
    videos = {f"{name}.mp4" for name in ("source", "edited", "comparison", "difference", "truth")}
    others = {"filmstrip.png", "steps.jsonl", "edit.json", "scores.csv", "latents.safetensors"}
    others |= {"edited.mkv", "reconstruction.mkv"}
    seen = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    assert seen.keys() == videos | others
    assert all(path.stat().st_size > 0 for path in (*seen.values(), *(run / name for name in of_run)))
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
    monkeypatch.setattr("assd.run.console._width", 400)  # no name is broken over lines
    outcome = assd(f"output={tmp_path}", "dataset.limit=2", "steps.distillation=1", full=True)
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
    """Other metrics under the same command: the edit stays, and so do the scores that it had."""
    assert assd(f"output={tmp_path}", *QUICK).code == 0
    (folder,) = edit_folders(tmp_path)
    before = latents(folder)
    assert assd(f"output={tmp_path}", *QUICK, "tracking.mode=disabled", "metric=[psnr,flicker]", full=True).code == 0
    measured = set(read_scores(folder).metric)
    assert any(name.startswith("CLIP text") for name in measured)  # what was measured stays
    assert sum(name.startswith("PSNR") for name in measured) == 4
    assert any(name.startswith("flicker") for name in measured)
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
    curves = tmp_path / f"steps.distillation={STEPS}" / "edits" / PAIR / "steps.jsonl"
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


def times(folder: Path) -> dict[str, int]:
    """When each file was written; the locks' aside."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_finished_pair_is_not_done_again(two_runs: tuple[Path, Path], assd: Callable[..., Outcome]) -> None:
    """The same command again touches no file of a finished pair, and says where the results are."""
    (folder,) = edit_folders(two_runs[1])
    before = times(folder)
    outcome = assd(f"output={two_runs[1]}", *LONG)
    assert outcome.code == 0, outcome.text
    assert outcome.says("finished", "overview.png")
    assert times(folder) == before


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
    edited = read_video(folder / "edited.mkv", None).frames
    assert torch.equal(read_video(folder / "edited", None).frames, edited)
    assert len(list((folder / "source").iterdir())) == len(edited)


def test_a_pair_of_another_job_keeps_its_scores(assd: Callable[..., Outcome], tmp_path: Path) -> None:
    """It is said to be busy, and who holds it; neither its folder nor a row of the run's scores is touched."""
    command = [f"output={tmp_path}", "dataset.limit=2", "steps.distillation=1"]
    assert assd(*command).code == 0
    first, busy = edit_folders(tmp_path)
    scores, before = read_scores(first.parent.parent), contents(busy)
    with one_writer(busy):
        outcome = assd(*command)
    assert outcome.code == 1
    assert outcome.says("1 of 2 pairs were left to another job", f"{busy} is being written by", "busy")
    assert read_scores(first.parent.parent).equals(scores)
    assert contents(busy) == before
