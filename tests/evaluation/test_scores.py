"""scores.csv: a row for each pair, video and metric, and nothing that was measured is lost."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from torch.nn.functional import interpolate

from assd.config import composed
from assd.data.pairs import Canvas, Footage, video
from assd.data.video import to_bytes, write_video
from assd.errors import InputError, NotHereError
from assd.runs.directory import EditDirectory
from evaluation.case import NoMeaning
from evaluation.comparison import failures
from evaluation.metrics.fidelity import IDENTICAL, Fidelity
from evaluation.metrics.shapes import EditSuccess
from evaluation.scores import (
    COLUMNS,
    failed,
    failure,
    in_bytes,
    merged,
    read_scores,
    row,
    score_edit,
    score_files,
    scored_by,
    update_scores,
    values,
)

CHANGE, PSNR = Fidelity("change"), Fidelity("psnr")


class Named:
    """A metric that does as it is told."""

    better = "higher"

    def __init__(self, name, outcome):
        self.name, self.outcome = name, outcome

    def __call__(self, case):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def table(*rows):
    """Rows of scores.csv."""
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture
def folder(perfect_run):
    """The folder of one finished pair, whose edit is the true one."""
    (pair,) = instantiate(composed(["dataset.limit=1"]).dataset, _convert_="all")
    return EditDirectory(perfect_run / "edits" / pair.id, pair)


def test_the_later_value_counts():
    """Scored again, a metric has its new value, once, and the others keep theirs; pairs stand in order."""
    before = table(row("b", "edited", "m", "higher", 1.0), row("b", "edited", "n", "higher", 2.0))
    after = table(row("b", "edited", "m", "higher", 3.0), row("a", "edited", "m", "higher", 4.0))
    rows = merged(before, after)[["pair", "metric", "value"]].to_numpy().tolist()
    assert rows == [["a", "m", 4.0], ["b", "n", 2.0], ["b", "m", 3.0]]


def test_nothing_never_replaces_a_value():
    """A metric that breaks today leaves yesterday's value; where there was none, the later reason stands."""
    before = table(row("a", "edited", "m", "higher", 1.0), row("a", "edited", "n", "higher", reason="old"))
    after = table(row("a", "edited", "m", "higher", reason="broke"), row("a", "edited", "n", "higher", reason="new"))
    joined = merged(before, after).set_index("metric")
    assert joined.value["m"] == 1.0
    assert joined.reason["n"] == "new"


def test_a_video_that_is_there_again_is_no_longer_missing():
    """What was said of a video without file goes when the pair is scored; of other pairs it stays."""
    before = pd.concat([failure("a", "not finished"), failure("b", "not finished")])
    joined = merged(before, table(row("a", "edited", "m", "higher", 1.0)))
    assert joined[["pair", "reason"]].to_numpy().tolist() == [["a", ""], ["b", "not finished"]]


def test_fewer_metrics_keep_the_others(folder):
    """Scoring by one metric loses none of those that were measured before."""
    both = score_edit(folder, [CHANGE, EditSuccess()])
    again = score_edit(folder, [EditSuccess()])
    assert set(again.metric) == set(both.metric) == {CHANGE.name, EditSuccess.name}
    key = ["video", "metric"]
    assert values(again).set_index(key).value.to_dict() == values(both).set_index(key).value.to_dict()


def test_an_edit_that_is_gone_keeps_its_scores(folder):
    """edited.mkv was moved to save room: what was measured of it stays, and it is said that it is missing."""
    before = values(score_edit(folder, [EditSuccess()])).set_index("video").value
    (folder.path / "edited.mkv").unlink()
    after = score_edit(folder, [EditSuccess(), CHANGE])
    assert values(after[after.metric == EditSuccess.name]).set_index("video").value["edited"] == before["edited"] == 1
    (missing,) = after[(after.metric == "") & (after.video == "edited")].reason
    assert "edited.mkv does not exist" in missing


def test_a_source_that_is_gone_keeps_the_scores(folder):
    """Neither does a source video that is not there any more lose anything."""
    score_edit(folder, [EditSuccess()])

    def gone(canvas):
        raise NotHereError("moved")

    kept = score_edit(EditDirectory(folder.path, replace(folder.pair, read=gone)), [EditSuccess()])
    assert values(kept[kept.video == "edited"]).value.tolist() == [1]


def test_a_metric_says_its_own_reason(folder):
    """Without a meaning it is no failure; broken it is one, with the error's own words, and the others have values."""
    told = [Named("senseless", NoMeaning("it rained")), Named("broken", RuntimeError("no memory")), EditSuccess()]
    scores = score_edit(folder, told)
    edited = scores[scores.video == "edited"].set_index("metric")
    assert edited.reason["senseless"] == "no meaning here: it rained"
    assert edited.reason["broken"] == "RuntimeError: no memory"
    assert edited.value[EditSuccess.name] == 1
    assert set(failed(scores).metric) == {"broken"}
    sentences = failures(scores.assign(method=scores.video))
    assert f"edited: no broken for {folder.pair.id} (RuntimeError: no memory)" in sentences
    assert not any("senseless" in said for said in sentences)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_that_is_none_is_a_reason(folder, number):
    """NaN and infinity rank nowhere: the metric broke, says so, and scores.csv is as whole as before."""
    scores = score_edit(folder, [Named("odd", float(number)), EditSuccess()])
    odd = scores[scores.metric == "odd"]
    assert odd.value.isna().all()
    assert set(odd.reason) == {f"returned {number}"}
    assert set(failed(scores).metric) == {"odd"}
    assert values(read_scores(folder.path)).metric.unique() == [EditSuccess.name]
    assert not scored_by(folder.path, [Named("odd", 1.0)])


def test_scored_by_is_a_question_of_subsets(folder):
    """Fewer metrics than were measured need nothing new, more do; what broke is tried again."""
    assert not scored_by(folder.path, [CHANGE])
    score_edit(folder, [CHANGE, EditSuccess()])
    assert scored_by(folder.path, [CHANGE])
    assert scored_by(folder.path, [EditSuccess(), CHANGE])
    assert not scored_by(folder.path, [CHANGE, Named("new", 1.0)])
    score_edit(folder, [Named("senseless", NoMeaning("it rained"))])
    assert scored_by(folder.path, [CHANGE, Named("senseless", 1.0)])
    score_edit(folder, [Named("broken", RuntimeError("no memory"))])
    assert not scored_by(folder.path, [Named("broken", 1.0)])


def test_scoring_fewer_pairs_keeps_the_others(tmp_path):
    """In a run's table a pair's rows take the place of its earlier ones, and of no others."""
    update_scores(tmp_path, table(row("a", "edited", "m", "higher", 1.0), row("b", "edited", "m", "higher", 2.0)))
    update_scores(tmp_path, table(row("b", "edited", "m", "higher", 3.0)))
    assert read_scores(tmp_path).set_index("pair").value.to_dict() == {"a": 1.0, "b": 3.0}


def test_rows_never_outlive_the_edit_that_they_measured(tmp_path):
    """Of a pair that was edited again stands what is known now, be it less, or a reason where there was a value."""
    old = [row("a", "edited", "m", "higher", 1.0), row("a", "edited", "n", "higher", 2.0)]
    update_scores(tmp_path, table(*old, row("b", "edited", "m", "higher", 3.0)))
    update_scores(tmp_path, table(row("a", "edited", "m", "higher", reason="broke")))
    rows = read_scores(tmp_path)[["pair", "metric", "reason"]].to_numpy().tolist()
    assert rows == [["a", "m", "broke"], ["b", "m", ""]]


FOUR_BY_THREE, WIDE, SQUARE = (60, 80), (36, 64), (32, 32)  # heights and widths


def filmed(path, size):
    """A pair on a file of moving texture, 4:3, that is scored at this size."""
    coarse = torch.rand(6, 3, 15, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    write_video(path / "clip.mkv", to_bytes(interpolate(coarse, size=FOUR_BY_THREE, mode="bicubic")), 8.0)
    (pair,) = video(str(path / "clip.mkv"), "a", "b", 6, *size)
    return pair


@pytest.mark.parametrize("scored", [SQUARE, WIDE], ids=["scored_square", "scored_wide"])
@pytest.mark.parametrize("edited", [SQUARE, WIDE, FOUR_BY_THREE], ids=["square", "wide", "whole"])
def test_an_unedited_video_of_any_aspect_is_its_source(tmp_path, edited, scored):
    """Cropped to a canvas of its own or not at all, then to that of the scores, it shows what its source shows."""
    pair = filmed(tmp_path, scored)
    unedited = pair.read(Canvas(6, *edited)).frames
    write_video(tmp_path / "edited.mkv", to_bytes(unedited), 8.0)
    scores = score_files(pair, {"edited": tmp_path / "edited.mkv"}, [PSNR])
    assert scores.set_index("video").value.to_dict() == {"source": IDENTICAL, "edited": IDENTICAL}


def test_masks_are_cropped_as_often_as_the_frames():
    """Of footage on an edit's wide canvas a mask lies on its object where it is scored; its flow is not known there."""
    frames = -torch.ones(2, 3, *WIDE)
    frames[..., 10:20, 24:44] = 1
    masks = frames[:, 0] > 0
    footage = Footage(frames, 8.0, masks, truth=-frames, bystander=~masks, flow=torch.zeros(1, 2, *WIDE))
    square = in_bytes(footage, Canvas(2, *SQUARE))
    assert square.frames.shape[-2:] == square.masks.shape[-2:] == SQUARE
    assert (square.masks == (square.frames[:, 0] > 0)).float().mean() > 0.99
    assert (square.bystander == (square.truth[:, 0] > 0)).float().mean() > 0.99
    assert square.flow is None


def test_a_source_that_has_one_size_alone_says_so(folder, tmp_path):
    """The embedded world is square: a wide edit of it is no crop that could be compared, and is refused."""
    write_video(tmp_path / "wide.mkv", torch.zeros(8, *WIDE, 3, dtype=torch.uint8), 8.0)
    scores = score_files(folder.pair, {"edited": tmp_path / "wide.mkv"}, [CHANGE])
    assert scores.reason.str.contains("8 frames of 64 x 36").tolist() == [True]


def test_texts_come_back_as_they_were(tmp_path):
    """A pair that is called NA or 007, a comma and a line break in a reason."""
    written = table(row("NA", "edited", reason='a, "b"\nc'), row("007", "edited", "m", "higher", 0.1 + 0.2))
    update_scores(tmp_path, written)
    read = read_scores(tmp_path).sort_values("pair", ascending=False)
    assert read.pair.tolist() == ["NA", "007"]
    assert read.reason.iloc[0] == written.reason.iloc[0]
    assert read.value.iloc[1] == 0.1 + 0.2


@pytest.mark.parametrize(
    "content", ["", "pair,value\na,1\n", "pair,video,metric,better,value,reason\na,b,c,d,many,f\n"]
)
def test_a_damaged_table_is_named(tmp_path, content):
    """Empty, with other columns, or with a text where a number belongs: one sentence with the file."""
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(InputError, match=r"scores\.csv"):
        read_scores(tmp_path)
