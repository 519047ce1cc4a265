"""A run that was made before the rooms were rebuilt (commit 6d50158) is scored, tabulated and shown.

`old_run` holds one pair. Its videos are of the embedded world as it was drawn then; what is asked here does not depend
on the pixels of today's.
"""

import shutil
from pathlib import Path

import pytest

from assd.data.video import read_video, to_pixels
from assd.runs.reader import edits_of, run_overrides
from evaluation import tables
from evaluation.comparison import collect, row_names, summarize
from evaluation.metrics.clip import ClipScorer
from evaluation.report import write_report
from evaluation.run import configuration, score
from evaluation.scores import read_scores, values

OLD = Path(__file__).with_name("old_run")
TEXT = "CLIP text (embedded CLIP, cosine)"


@pytest.fixture
def old(tmp_path):
    """A copy of it under the name that it had."""
    return Path(shutil.copytree(OLD, tmp_path / "ablation=no_waf"))


def test_it_is_read(old):
    """Overrides, prompts, curves and videos."""
    (edit,) = edits_of(old)
    assert run_overrides(old) == ["ablation=no_waf"]
    assert edit.finished
    assert edit.prompts.target == "a green circle moving right over brick"
    assert len(edit.curves) == 30
    assert edit.video("edited", ".mkv") is not None


def test_its_scores_are_tabulated_as_they_are(old):
    """The same metrics under the same names, the source and its reconstruction as rows of their own."""
    assert row_names([old]) == ["no_waf"]
    summary = summarize(collect([old])).set_index(["method", "metric"])
    before = values(read_scores(OLD)).query("video == 'edited'").set_index("metric").value
    assert len(before) >= 15
    for metric, value in before.items():
        assert summary.loc[("no_waf", metric), "mean"] == pytest.approx(value)
    assert "no_waf" in tables.render(summarize(collect([old])), "md")


def test_it_is_scored_again(old):
    """By the command that made it, though its configuration names classes that have moved: what today's CLIP says."""
    (edit,) = edits_of(old)
    frames = read_video(edit.video("edited", ".mkv"), None).frames
    scorer = ClipScorer("local-dir:pkg://assd.shapes/weights/clip", device="cpu")
    seen = scorer.embed_frames(to_pixels(frames, *frames.shape[1:3]))
    expected = (seen @ scorer.embed_prompts([edit.prompts.target]).T).mean().item()
    assert configuration(old, []).dataset.limit == 1
    scores = score(old, ["metric=[clip_text]"])
    assert scores.query("video == 'edited'").set_index("metric").value[TEXT] == pytest.approx(expected, abs=1e-5)
    kept = values(read_scores(old)).query("video == 'edited'")
    assert len(kept) == len(values(read_scores(OLD)).query("video == 'edited'"))


def test_its_names_are_todays(old):
    """What is measured today goes by the very names that it had then; one metric came since."""
    from hydra.utils import instantiate  # noqa: PLC0415

    today = {metric.name for metric in instantiate(configuration(old, []).metric, _convert_="all").values()}
    since = {"mean change (of 255) to source, inside the bystander"}
    assert today - since == set(read_scores(OLD).query("metric != ''").metric)


def test_its_page_is_written(old):
    """With its videos, curves and command inside."""
    page = write_report([old], old / "report.html").read_text(encoding="utf-8")
    assert "mask coverage" in page
    assert "a green circle moving right over brick" in page
    assert "+ablation=no_waf" in page
    assert page.count("data:video/mp4") == 2
