"""The plan: balanced over comparisons, sides and raters, and the same for the same seed."""

from collections import Counter
from dataclasses import replace

import pytest

from assd.errors import InputError
from evaluation.study.plan import BROKEN, Plan

PLAN = Plan(design="pairwise", sheets=40, trials=24, broken=3, repeats=2, seed=0)
SIX = [list(range(6)) for _ in range(30)]


def judged(sheets):
    """The judged trials of all sheets."""
    return [trial for sheet in sheets for trial in sheet if trial.kind == "judged"]


def test_comparisons_are_balanced():
    """960 trials over 450 comparisons: each is shown two or three times, to different raters."""
    sheets = PLAN.deal(SIX)
    shown = Counter((trial.pair, frozenset(trial.methods)) for trial in judged(sheets))
    assert len(shown) == 30 * 15
    assert set(shown.values()) == {2, 3}
    for sheet in sheets:
        own = [(trial.pair, frozenset(trial.methods)) for trial in judged([sheet])]
        assert len(set(own)) == len(own) == 24


def test_each_rater_sees_all_pairs_and_methods():
    """Within one sheet no pair comes a second time before all have come, and each two methods come as often."""
    few = replace(PLAN, trials=15).deal([list(range(6)) for _ in range(8)])
    for sheet in few:
        assert set(Counter(trial.pair for trial in judged([sheet])).values()) == {1, 2}
        assert set(Counter(frozenset(trial.methods) for trial in judged([sheet])).values()) == {1}


def test_sides_are_balanced():
    """Two decks show each comparison once either way round; one, each two methods either way on half of the pairs."""
    two = replace(PLAN, sheets=60, trials=15).deal(SIX)
    assert set(Counter((trial.pair, trial.methods) for trial in judged(two)).values()) == {1}
    one = replace(PLAN, sheets=30, trials=15).deal(SIX)
    assert set(Counter(trial.methods for trial in judged(one)).values()) == {15}


def test_places_are_balanced_in_best_of():
    """Each method is as often at each place, and each pair as often shown."""
    sheets = replace(PLAN, design="best_of", sheets=6, trials=30).deal(SIX)
    places = Counter((place, method) for trial in judged(sheets) for place, method in enumerate(trial.methods))
    assert set(places.values()) == {30}
    assert set(Counter(trial.pair for trial in judged(sheets)).values()) == {6}


@pytest.mark.parametrize("design", ["pairwise", "best_of"])
def test_catch_trials(design):
    """A sheet has three broken clips, not all on one side, and two earlier trials again, turned around."""
    for sheet in replace(PLAN, design=design).deal(SIX):
        broken = [trial for trial in sheet if trial.kind == "broken"]
        assert len(broken) == 3
        assert all(sum(method != BROKEN for method in trial.methods) == 1 for trial in broken)
        assert len({trial.methods.index(BROKEN) for trial in broken}) == 2 or design == "best_of"
        repeats = [(place, trial) for place, trial in enumerate(sheet) if trial.kind == "repeat"]
        assert len(repeats) == 2
        for place, trial in repeats:
            first = sheet[trial.repeats]
            assert trial.repeats < place - 4
            assert (first.kind, first.pair, first.methods[::-1]) == ("judged", trial.pair, trial.methods)


def test_the_seed_decides():
    """The same seed gives the same sheets, another gives others."""
    assert PLAN.deal(SIX) == PLAN.deal(SIX) != replace(PLAN, seed=1).deal(SIX)


def test_only_finished_edits_are_shown():
    """A method that failed on a pair is not shown there."""
    finished = [[0, 1, 2], [0, 2], [1, 2], [0, 1, 2]]
    for trial in judged(PLAN.deal(finished)):
        assert {*trial.methods} <= {*finished[trial.pair]}


def test_impossible_sizes_are_refused():
    """A study has sheets and trials."""
    with pytest.raises(InputError, match="--raters is 0"):
        replace(PLAN, sheets=0)
