"""Scores of run directories and of other programs' videos, without the editor."""

import json
import shutil
import sys

import pytest

from assd.config import known_targets
from assd.data.video import to_bytes, write_video
from assd.errors import InputError
from assd.shapes.corpus import clip_pairs
from assd.shapes.dataset import footage
from evaluation.metrics.fidelity import IDENTICAL
from evaluation.run import configuration, main, score
from evaluation.scores import read_scores, values
from tests.commands import program

FIRST, SECOND = clip_pairs()[:2]


def by_metric(scores, video="edited"):
    """The values of one pair's video, by the beginning of the metric's name."""
    rows = scores[(scores.video == video) & (scores.pair == FIRST.id)]
    return lambda start: next(row.value for row in rows.itertuples() if row.metric.startswith(start))


@pytest.fixture(scope="module")
def scored(finished_run, tmp_path_factory):
    """A run whose edits are the true edits, and its scores."""
    run = finished_run(tmp_path_factory.mktemp("runs") / "perfect", lambda known: known.truth)
    return run, score(run, [])


@pytest.mark.end_to_end
def test_the_unedited_source_stands_beside_the_edit(scored):
    """Edited, source and reconstruction are scored alike, from files without loss.

    The true edit is perfect, also through its file; the source kept everything and changed nothing.
    """
    _, scores = scored
    edited, source = by_metric(scores), by_metric(scores, "source")
    assert edited("edit made") == 1
    assert source("edit made") == 0
    assert edited("PSNR (dB) to true edit, everywhere") == IDENTICAL > source("PSNR (dB) to true edit, inside")
    assert source("PSNR (dB) to source, outside") == IDENTICAL == edited("PSNR (dB) to source, outside")
    assert source("contamination") == source("CLIP direction") == 0
    assert set(scores.video) == {"source", "reconstruction", "edited"}
    assert set(scores.better) == {"higher", "lower"}


@pytest.mark.end_to_end
def test_scores_come_back_from_their_file(scored):
    """scores.csv holds what was returned, to the last digit."""
    run, scores = scored
    again = read_scores(run)
    assert again.equals(scores.reset_index(drop=True))


def test_a_pair_without_result_is_a_row_with_its_reason(finished_run, tmp_path):
    """Neither a failed nor a missing nor a broken edit disappears from the table."""
    run = finished_run(tmp_path / "run", lambda known: known.truth, pairs=3)
    failed, broken = run / "edits" / FIRST.id, run / "edits" / SECOND.id
    record = json.loads((failed / "edit.json").read_text())
    (failed / "edit.json").write_text(json.dumps(record | {"status": "failed", "reason": "it rained"}))
    (broken / "edited.mkv").write_bytes(b"no film")
    (run / "edits" / clip_pairs()[2].id / "edit.json").unlink()
    scores = score(run, ["metric=[clip_text]"])
    edited = scores[scores.video == "edited"].set_index("pair")
    assert edited.index.tolist() == [pair.id for pair in clip_pairs()[:3]]
    assert edited.value.isna().all()
    assert edited.reason.iloc[0] == "it rained"
    assert "can't be read as a video" in edited.reason.iloc[1]
    assert edited.reason.iloc[2] == "not finished"
    assert scores[(scores.video == "source") & (scores.pair == SECOND.id)].value.notna().all()


@pytest.mark.end_to_end
def test_a_finished_edit_whose_video_is_gone(finished_run, tmp_path):
    """The other pairs are scored, and the program ends with 1; a pair that failed has no video to be missed."""
    run = finished_run(tmp_path / "run", lambda known: known.truth, pairs=3)
    gone, failed = run / "edits" / FIRST.id, run / "edits" / SECOND.id
    record = json.loads((failed / "edit.json").read_text())
    (failed / "edit.json").write_text(json.dumps(record | {"status": "failed", "reason": "it rained"}))
    assert program("-m", "evaluation.run", run, "metric=[edit_success]", "device=cpu").code == 0
    (gone / "edited.mkv").unlink()
    ended = program("-m", "evaluation.run", run, "metric=[psnr]", "device=cpu")
    assert ended.code == 1
    assert ended.says("error: 1 edits can't be scored", f"{gone / 'edited.mkv'} does not exist")
    scores = read_scores(run)
    assert scores[(scores.pair == clip_pairs()[2].id) & scores.metric.str.startswith("PSNR")].value.notna().any()


def test_damaged_records_stop_nothing(finished_run, tmp_path, monkeypatch):
    """A pair whose edit.json or scores.csv is damaged is a row with the reason; the third is scored; the end is 1."""
    run = finished_run(tmp_path / "run", lambda known: known.truth, pairs=3)
    record, table = run / "edits" / FIRST.id / "edit.json", run / "edits" / SECOND.id / "scores.csv"
    record.write_text("{")
    table.write_text("half a")
    monkeypatch.setattr(sys, "argv", ["evaluation.run", str(run), "metric=[edit_success]"])
    with pytest.raises(SystemExit, match="2 edits can't be scored") as end:
        main()
    assert f"{record} is damaged" in end.value.code
    assert f"{table} is damaged" in end.value.code
    scores = read_scores(run)
    assert scores[scores.pair.isin([FIRST.id, SECOND.id])].value.isna().all()
    assert scores[scores.pair == clip_pairs()[2].id].value.notna().any()
    assert (run / "report.html").is_file()


def test_scores_end_with_their_edit(finished_run, tmp_path):
    """Fewer metrics keep the others' scores of an edit; of one that was removed, or made again, nothing old is left."""
    run = finished_run(tmp_path / "run", lambda known: known.truth, pairs=1)
    both = score(run, ["metric=[edit_success,flicker]"])
    kept = score(run, ["metric=[edit_success]"])
    assert kept.equals(read_scores(run))
    assert set(kept.metric) == set(both.metric)
    shutil.rmtree(run / "edits" / FIRST.id)
    assert score(run, ["metric=[edit_success]"]).reason.tolist() == ["not finished"]
    assert len(read_scores(run)) == 1
    finished_run(run, lambda known: known.frames, pairs=1)
    anew = score(run, ["metric=[edit_success]"])
    assert anew.equals(read_scores(run))
    assert anew.metric.unique().tolist() == ["edit made (judged by pixels, share)"]
    assert by_metric(anew)("edit made") == 0


def test_another_programs_video_keeps_its_scores_until_it_is_gone(tmp_path):
    """By fewer metrics the others' scores stay; a video that was removed has none."""
    for pair in (FIRST, SECOND):
        write_video(tmp_path / f"{pair.id}.mp4", to_bytes(footage(pair).truth), 8.0)
    score(tmp_path, ["dataset.limit=2", "metric=[edit_success,flicker]"])
    (tmp_path / f"{SECOND.id}.mp4").unlink()
    score(tmp_path, ["dataset.limit=2", "metric=[edit_success]"])
    edited = values(read_scores(tmp_path).query("video == 'edited'"))
    assert edited.pair.unique().tolist() == [FIRST.id]
    assert len(edited) == 2


@pytest.mark.end_to_end
def test_another_programs_videos(tmp_path):
    """A folder of mp4 files named by pair is scored from the command line; a pair that is missing is a row."""
    write_video(tmp_path / f"{FIRST.id}.mp4", to_bytes(footage(FIRST).truth), 8.0)
    ended = program("-m", "evaluation.run", tmp_path, "dataset.limit=2", "metric=[edit_success,psnr]")
    assert ended.code == 0, ended.text
    assert "1 of 2" in ended.text
    scores = read_scores(tmp_path)
    assert by_metric(scores)("edit made") == 1
    missing = scores[(scores.pair == SECOND.id) & (scores.video == "edited")]
    assert "does not exist" in missing.reason.item()
    assert by_metric(scores, "source")("edit made") == 0


def test_folders_that_hold_no_edits(tmp_path):
    """The error says what is looked for."""
    with pytest.raises(InputError, match=f"{FIRST.id}.mp4"):
        score(tmp_path, [])
    with pytest.raises(InputError, match="no directory"):
        score(tmp_path / "nowhere", [])


def test_settings_of_scoring_are_changed_alone(finished_run, tmp_path):
    """`dataset.limit=1` leaves the run's other settings, `clip.label=` reaches every metric, and the page is new."""
    run = finished_run(tmp_path / "run", lambda known: known.truth)
    scores = score(run, ["metric=[clip_text]", "dataset.limit=1", "clip.label=renamed"])
    assert set(scores.metric) == {"CLIP text (renamed, cosine)"}
    assert scores.pair.unique().tolist() == [FIRST.id]
    assert "CLIP text (renamed, cosine)" in (run / "report.html").read_text(encoding="utf-8")


def test_a_run_is_composed_again_from_its_overrides(finished_run, tmp_path):
    """Its experiment, its dataset and the number of its pairs; with which method it was edited is not asked."""
    made_by = ["+experiment=quick", "+ablation=no_smoothing", "seed=3", "dataset.split=tuning"]
    run = finished_run(tmp_path / "renamed", lambda known: known.truth, pairs=1, overrides=made_by)
    environment = json.loads((run / "environment.json").read_text())
    environment["overrides"] += ["method=of_ones_own", "method.strength=3"]
    (run / "environment.json").write_text(json.dumps(environment))
    cfg = configuration(run, [])
    assert (cfg.dataset.split, cfg.dataset.limit, cfg.seed) == ("tuning", 1, 3)


def test_what_is_left_out_and_what_is_chosen_anew(perfect_run):
    """`~metric.psnr` drops one metric; a group's own values may stand before or after its choice."""
    assert "psnr" not in configuration(perfect_run, ["~metric.psnr"]).metric
    assert list(configuration(perfect_run, ["metric=[psnr,edit_success]", "~metric.psnr_five"]).metric) == [
        "psnr", "psnr_reconstruction", "psnr_object", "edit_success",
    ]  # fmt: skip
    prompts = ["dataset.source_prompt=a", "dataset.target_prompt=b"]
    cfg = configuration(perfect_run, [*prompts, "dataset=video", "dataset.path=cat.mp4", "device=cuda"])
    assert (cfg.dataset.path, cfg.dataset.source_prompt) == ("cat.mp4", "a")
    with_flow = configuration(perfect_run, ["metric=[warp_error]", "device=cpu"])
    assert with_flow.metric.warp_error.device == "cpu"


def test_a_runs_own_settings_stay(perfect_run):
    """What made the edits can't be changed by scoring them."""
    for override in ("method.num_steps=3", "+ablation=full", "model=modelscope"):
        with pytest.raises(InputError, match="can't be changed for a run that is there"):
            score(perfect_run, [override])


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset._target_=pandas.read_pickle", "+dataset.filepath_or_buffer={pickle}"],
        ["metric.clip_text._target_=pandas.read_pickle", "+metric.clip_text.filepath_or_buffer={pickle}"],
        ["clip._target_=pandas.read_pickle", "+clip.filepath_or_buffer={pickle}"],
        ["+metric.evil={{_target_: pandas.read_pickle, filepath_or_buffer: '{pickle}'}}"],
    ],
)
def test_a_strangers_run_runs_no_code(perfect_run, tmp_path, overrides):
    """A run directory may name anything: what conf/ does not name is refused, and the pickle is not loaded."""
    owned = tmp_path / "owned"
    (tmp_path / "evil.pkl").write_bytes(b"cbuiltins\nopen\n(V" + str(owned).encode() + b"\nVw\ntR.")
    said = [override.format(pickle=tmp_path / "evil.pkl").lstrip("+") for override in overrides]
    environment = perfect_run / "environment.json"
    environment.write_text(json.dumps(json.loads(environment.read_text()) | {"overrides": said}))
    with pytest.raises(InputError, match=r"pandas\.read_pickle, which no file of conf/ names.*--trust"):
        score(perfect_run, [])
    assert not owned.exists()
    assert configuration(perfect_run, [], trust=True) is not None


def test_a_strangers_configuration_is_not_instantiated(perfect_run):
    """config.yaml is a record: what stands there as a target is never built."""
    text = (perfect_run / "config.yaml").read_text()
    target = "_target_: assd.shapes.dataset.shapes"
    assert target in text
    (perfect_run / "config.yaml").write_text(text.replace(target, "_target_: pandas.read_pickle"))
    assert configuration(perfect_run, []).dataset._target_ == "assd.shapes.dataset.shapes"


def test_every_target_of_this_project_is_known():
    """What is refused is what no file of conf/ names, and nothing else."""
    assert {"assd.shapes.dataset.shapes", "evaluation.metrics.fidelity.Fidelity"} <= known_targets()
    assert "pandas.read_pickle" not in known_targets()
