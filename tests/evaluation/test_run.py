"""Scores of run directories and of other programs' videos, without the editor."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.utils import instantiate

from assd.config import composed
from assd.data.video import to_bytes, write_video
from assd.errors import InputError, NotHereError
from assd.runs.directory import EditDirectory
from assd.shapes.corpus import clip_pairs
from assd.shapes.dataset import footage
from evaluation.comparison import failures
from evaluation.metrics.fidelity import IDENTICAL
from evaluation.metrics.shapes import EditSuccess
from evaluation.run import configuration, score
from evaluation.scores import read_scores, score_edit, scored_by

ROOT = Path(__file__).parent.parent
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


def test_a_metric_that_fails_is_a_row(finished_run, tmp_path):
    """Its reason stands in the table, and the other metrics have their values."""

    class Broken:
        name, better = "broken", "higher"

        def __call__(self, case):
            raise RuntimeError("out of memory")

    run = finished_run(tmp_path / "run", lambda known: known.truth, pairs=1)
    pair = instantiate(composed(["dataset.limit=1"]).dataset)[0]
    scores = score_edit(EditDirectory(run / "edits" / pair.id, pair), [Broken(), EditSuccess()])
    edited = scores[scores.video == "edited"].set_index("metric")
    assert edited.reason["broken"] == "RuntimeError: out of memory"
    assert edited.value[EditSuccess.name] == 1
    assert failures(scores.assign(method=scores.video))[2].startswith(f"edited: no broken for {pair.id}")
    assert not scored_by(run / "edits" / pair.id, [Broken(), EditSuccess()])  # the same command tries it again


def test_another_programs_videos(tmp_path):
    """A folder of mp4 files named by pair is scored from the command line; a pair that is missing is a row."""
    write_video(tmp_path / f"{FIRST.id}.mp4", to_bytes(footage(FIRST).truth), 8.0)
    command = [sys.executable, "-m", "evaluation.run", str(tmp_path), "dataset.limit=2", "metric=[edit_success,psnr]"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "1 of 2" in ended.stdout
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


def test_one_setting_of_a_run_is_changed_alone(finished_run, tmp_path):
    """`dataset.limit=1` leaves the run's other settings, `clip.label=` reaches every metric, and the page is new."""
    run = finished_run(tmp_path / "run", lambda known: known.truth, overrides=["metric=[clip_text]"])
    scores = score(run, ["dataset.limit=1", "clip.label=renamed"])
    assert set(scores.metric) == {"CLIP text (renamed, cosine)"}
    assert scores.pair.unique().tolist() == [FIRST.id]
    assert "CLIP text (renamed, cosine)" in (run / "report.html").read_text(encoding="utf-8")


def test_scores_of_other_pairs_stay(finished_run, tmp_path):
    """Scoring fewer pairs again loses nothing; neither does a source video that is not there any more."""
    run = finished_run(tmp_path / "run", lambda known: known.truth, overrides=["metric=[edit_success]"])
    before = score(run, [])
    score(run, ["dataset.limit=1"])
    assert read_scores(run).equals(before)

    def gone():
        raise NotHereError("moved")

    pair = replace(instantiate(composed(["dataset.limit=1"]).dataset)[0], read=gone)
    kept = score_edit(EditDirectory(run / "edits" / pair.id, pair), [EditSuccess()])
    assert by_metric(kept)("edit made") == 1


def test_what_is_left_out_and_what_is_chosen_anew(finished_run, tmp_path):
    """`~metric.psnr` drops one metric; a group's own values may stand before or after its choice."""
    run = finished_run(tmp_path / "run", lambda known: known.truth, overrides=["metric=[psnr,edit_success]"])
    assert list(configuration(run, ["~metric.psnr"]).metric) == ["edit_success"]
    prompts = ["dataset.source_prompt=a", "dataset.target_prompt=b"]
    cfg = configuration(run, [*prompts, "dataset=video", "dataset.path=cat.mp4", "device=cuda"])
    assert (cfg.dataset.path, cfg.dataset.source_prompt) == ("cat.mp4", "a")
    with_flow = configuration(run, ["metric=[warp_error]", "device=cpu"])
    assert with_flow.metric.warp_error.device == "cpu"


def test_a_runs_own_settings_stay(scored):
    """What made the edits can't be changed by scoring them."""
    run, _ = scored
    with pytest.raises(InputError, match="method can't be changed"):
        score(run, ["method.num_steps=3"])
