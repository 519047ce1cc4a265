"""The benchmark of real videos: what is here, and what is missing."""

import contextlib
import csv
import json
from dataclasses import replace

import pytest

from assd.benchmark import status
from assd.data.benchmark import benchmark
from assd.data.benchmark.dataset import read_entry
from assd.data.benchmark.manifest import MANIFEST_CSV, SOURCES, manifest
from assd.data.pairs import Canvas, Prompts
from assd.errors import InputError, NotHereError
from evaluation.case import Case, NoMeaning
from tests.commands import program
from tests.data.benchmark_files import davis_sequence

SIZE = dict(num_frames=4, height=64, width=64)
CANVAS = Canvas(**SIZE)


def test_the_core_has_30_pairs():
    """30 core pairs, 87 in all; every row has a known source, two different prompts, and a citation; ids are unique."""
    core, extended = manifest("core"), manifest("extended")
    assert len(core) == 30
    assert len(extended) == 87
    assert len({entry.id for entry in extended}) == 87
    for entry in extended:
        assert entry.source in SOURCES
        assert entry.source_prompt != entry.target_prompt
        assert entry.citation


def test_manifest_has_no_stray_columns():
    """A comma that someone forgot to quote would shift a citation into nowhere."""
    with MANIFEST_CSV.open(newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {7}


def test_an_empty_data_root_says_where_to_look(tmp_path, capsys):
    """status counts nothing and names every source; the dataset refuses to begin, with the command to type."""
    status(tmp_path, "core")
    printed = capsys.readouterr().out
    assert "0 of 30 pairs can be edited" in printed
    for text in ("fetch davis", "loveu-tgve-2023", "Shutterstock"):
        assert text in printed
    with pytest.raises(InputError, match=r"assd.benchmark status"):
        benchmark(str(tmp_path), "core", **SIZE)


def test_a_filled_data_root(tmp_path, capsys):
    """DAVIS's two pairs of the bear can be edited, with masks; others are left out when their turn comes."""
    davis_sequence(tmp_path, "bear")
    status(tmp_path, "core")
    assert "2 of 30 pairs can be edited" in capsys.readouterr().out
    pairs = benchmark(str(tmp_path), "core", **SIZE)
    assert [pair.id for pair in pairs[:3]] == ["core-01-bear", "core-02-bear", "core-03-blackswan"]
    footage = pairs[0].read(CANVAS)
    assert footage.frames.shape == (4, 3, 64, 64)
    assert footage.masks[:, :, :20].all()
    assert not footage.masks[:, :, 44:].any()
    with pytest.raises(NotHereError, match="blackswan"):
        pairs[2].read(CANVAS)


@pytest.mark.end_to_end
def test_a_run_on_an_incomplete_benchmark(tmp_path):
    """What is here is edited with its masks in the scores, the rest is a row with the reason, exit code 0."""
    davis_sequence(tmp_path / "data", "bear", frames=8)
    prompts = tmp_path / "in_the_models_words.csv"
    rows = list(csv.DictReader(MANIFEST_CSV.open(newline="")))[:3]
    for row in rows:  # the embedded model knows no bears
        row |= {
            "source_prompt": "a red circle moving right over snow",
            "target_prompt": "a blue circle moving up over snow",
        }
    with prompts.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    code = (
        "import sys; from pathlib import Path; from assd.data.benchmark import manifest; "
        f"manifest.MANIFEST_CSV = Path({str(prompts)!r}); from assd.run import main; main()"
    )
    done = program(
        "-c", code, "dataset=benchmark", f"dataset.root={tmp_path / 'data'}", "steps.distillation=2",
        "targets_together=2", "tracking.mode=disabled", "metric=[psnr]", f"output={tmp_path / 'runs'}", "device=cpu",
    )  # fmt: skip
    assert done.code == 0, done.text
    (scores,) = (tmp_path / "runs").glob("*/scores.csv")
    rows = [row for row in csv.DictReader(scores.open(newline="")) if row["video"] == "edited"]
    valued = {row["pair"] for row in rows if row["metric"].startswith("PSNR (dB) to source, outside") and row["value"]}
    assert valued == {"core-01-bear", "core-02-bear"}
    (missing,) = [row for row in rows if row["pair"] == "core-03-blackswan"]
    assert "blackswan is not in" in missing["reason"]
    assert "blackswan" in program("-m", "evaluation.tables", scores.parent).text
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "runs").glob("*/edits/*/edit.json"))]
    assert [record["status"] for record in records] == ["finished", "finished", "failed"]


@pytest.mark.parametrize(
    ("edit_type", "changes"),
    [("object_swap", "object"), ("colour", "object"), ("background", "background"), ("style", "everything")],
)
def test_what_an_edit_changes_follows_from_its_kind(tmp_path, edit_type, changes):
    """Outside the object nothing is to stay where the background or the style is edited."""
    davis_sequence(tmp_path, "bear")
    (number, *_) = [i for i, entry in enumerate(manifest("core")) if entry.edit_type == edit_type]
    entry = replace(manifest("core")[number], identifier="bear", source="DAVIS-2017")
    footage = read_entry(entry, tmp_path, CANVAS)
    assert footage.changes == changes
    case = Case(footage.frames, Prompts("a", "b"), footage)
    for region, kept in (("background", changes == "object"), ("object", changes == "background")):
        with contextlib.nullcontext() if kept else pytest.raises(NoMeaning, match="was to change"):
            assert case.kept(region).any()
