"""The reader of a run directory: it needs no dataset, and trusts no file."""

import json

import pytest

from assd.data.pairs import Prompts
from assd.errors import InputError
from assd.runs.reader import FinishedEdit, edits_of, is_run, read_config, read_environment, run_overrides

RECORD = {"id": "a", "source_prompt": "a car", "target_prompt": "a bus", "status": "finished"}


def edit(run, name="01-car", record=RECORD):
    """A pair's folder with a record."""
    folder = run / "edits" / name
    folder.mkdir(parents=True)
    (folder / "edit.json").write_text(json.dumps(record))
    return folder


def test_an_edit_by_its_path_alone(tmp_path):
    """Prompts, whether it is done, its videos and its curves."""
    folder = edit(tmp_path)
    (folder / "edited.mp4").write_bytes(b"")
    (folder / "steps.jsonl").write_text('{"step": 0, "t": 5}\n{"step": 1, "t": 7}\n')
    read = FinishedEdit(folder)
    assert (read.id, read.prompts, read.finished, read.reason) == ("01-car", Prompts("a car", "a bus"), True, None)
    assert read.video("edited") == folder / "edited.mp4"
    assert read.video("edited", ".mkv") is None
    assert read.filmstrip is None
    assert [curve["t"] for curve in read.curves] == [5, 7]


@pytest.mark.parametrize("last", ["", "{", '{"step": 2, "t', "[]", '{"step": "2"}', '{"t": 4}', "null"])
def test_curves_end_at_the_first_line_that_is_none(tmp_path, last):
    """A kill may cut a line anywhere; what stands behind it is not read."""
    folder = edit(tmp_path)
    (folder / "steps.jsonl").write_text('{"step": 0}\n{"step": 1}\n' + last + '\n{"step": 9}\n')
    assert [curve["step"] for curve in FinishedEdit(folder).curves] == [0, 1]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"status": "perhaps"}', '"finished"'])
def test_a_damaged_record_is_named(tmp_path, content):
    """One sentence with the file and what to do, and no guess."""
    folder = edit(tmp_path)
    (folder / "edit.json").write_text(content)
    with pytest.raises(InputError, match=r"edit\.json"):
        _ = FinishedEdit(folder).finished


def test_a_folder_without_record_is_not_finished(tmp_path):
    """Nor has it failed."""
    assert not FinishedEdit(tmp_path).finished
    assert FinishedEdit(tmp_path).reason is None


def test_pairs_in_order_and_none_from_outside(tmp_path):
    """By id; a link that leads out of the run is left out, and so is a folder without record."""
    for name in ("02-car", "01-car"):
        edit(tmp_path / "run", name)
    (tmp_path / "run" / "edits" / "03-empty").mkdir()
    outside = edit(tmp_path / "other", "secret")
    (tmp_path / "run" / "edits" / "04-link").symlink_to(outside)
    assert [found.id for found in edits_of(tmp_path / "run")] == ["01-car", "02-car"]
    assert edits_of(tmp_path / "nowhere") == []


def test_a_run_is_what_has_a_configuration(tmp_path):
    """A damaged one is named."""
    assert not is_run(tmp_path)
    for content in ("a: [", "", "- a", "a: 1\n b: 2"):
        (tmp_path / "config.yaml").write_text(content)
        assert is_run(tmp_path)
        with pytest.raises(InputError, match=r"config\.yaml"):
            read_config(tmp_path / "config.yaml")


def test_overrides_as_the_run_says_or_as_it_is_called(tmp_path):
    """environment.json says them as they were typed; a run of before has them in its name."""
    run = tmp_path / "ablation=full,loss=[assd,sds],seed=1"
    run.mkdir()
    assert run_overrides(run) == ["ablation=full", "loss=[assd,sds]", "seed=1"]
    (run / "environment.json").write_text(json.dumps({"overrides": ["model.path=/a,b"]}))
    assert run_overrides(run) == ["model.path=/a,b"]
    assert run_overrides(tmp_path / "default") == []


@pytest.mark.parametrize("content", ["{", "[]", '{"overrides": "seed=1"}', '{"overrides": [1]}'])
def test_a_damaged_environment_is_named(tmp_path, content):
    """Whatever stands in it, it is one sentence."""
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(InputError, match=r"environment\.json"):
        run_overrides(tmp_path)
    assert read_environment(tmp_path / "nowhere") == {}


def test_the_clip_of_a_strange_record_is_unknown(tmp_path):
    """A record that somebody sent may hold anything where the identity stands: a table is made all the same."""
    for identity, clip in (({"clip": "car"}, "car"), ({"clip": 3}, None), (["car"], None), (None, None)):
        (tmp_path / "edit.json").write_text(json.dumps(RECORD | {"identity": identity}))
        assert FinishedEdit(tmp_path).clip == clip
