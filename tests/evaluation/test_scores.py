"""scores.csv: a row for each pair, video and metric, and nothing that was measured is lost."""

from dataclasses import replace

import pandas as pd
import pytest
from hydra.utils import instantiate

from assd.config import composed
from assd.errors import InputError, NotHereError
from assd.runs.directory import EditDirectory
from evaluation.case import NoMeaning
from evaluation.comparison import failures
from evaluation.metrics.fidelity import Fidelity
from evaluation.metrics.shapes import EditSuccess
from evaluation.scores import (
    COLUMNS,
    failed,
    failure,
    merged,
    read_scores,
    row,
    score_edit,
    scored_by,
    update_scores,
    values,
)

CHANGE = Fidelity("change")


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
    """A run's table is merged as a pair's is."""
    update_scores(tmp_path, table(row("a", "edited", "m", "higher", 1.0), row("b", "edited", "m", "higher", 2.0)))
    update_scores(tmp_path, table(row("b", "edited", "m", "higher", 3.0)))
    assert read_scores(tmp_path).set_index("pair").value.to_dict() == {"a": 1.0, "b": 3.0}


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
