"""Who sees what: sheets of trials, balanced over pairs, methods, sides and raters, from one seed.

The plan knows methods and pairs as numbers only. Comparisons are dealt from a deck that holds each once, in an order in
which any stretch spreads over all pairs and all methods; the sheets are stretches of deck after deck. So the counts of
any two comparisons differ by at most one, and each second deck swaps the sides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, combinations, count, cycle, islice
from math import lcm
from typing import Literal

import numpy as np

from assd.errors import require

MOST_BROKEN = 6  # pairs with a broken clip
BROKEN = -1  # stands for a broken clip among a trial's methods
Kind = Literal["judged", "broken", "repeat"]
Design = Literal["pairwise", "best_of"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one screen shows: a pair, and the methods from left to right. `repeats` is the index of an earlier trial."""

    pair: int
    methods: tuple[int, ...]
    kind: Kind = "judged"
    repeats: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many sheets there are, and what lies on each: judged trials, and catch trials in between.

    Args:
        design: `pairwise` shows two edits a trial, `best_of` all of them, as the paper's study did.
        sheets: raters that the study is balanced for; more begin again with the first sheet.
        trials: judged trials on a sheet; fewer where the study has fewer comparisons.
        broken: catch trials with a broken clip.
        repeats: catch trials that show an earlier one again, its edits in reversed order.
        seed: of sides and orders.
    """

    design: Design
    sheets: int
    trials: int
    broken: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in dict(sheets=1, trials=2, broken=0, repeats=0).items():
            option = {"sheets": "--raters"}.get(name, f"--{name}")
            require(getattr(self, name) >= least, f"{option} is {getattr(self, name)}: it has to be {least} or more")

    def deal(self, finished: list[list[int]]) -> list[list[Trial]]:
        """The sheets. `finished[pair]` lists the methods that edited it, all of them for `best_of`."""
        rng = np.random.default_rng(self.seed)
        decks = pairwise_decks(finished, rng) if self.design == "pairwise" else best_of_decks(finished, rng)
        first = next(decks)
        trials = min(self.trials, len(first))
        dealt = chain(first, chain.from_iterable(decks))
        sheets = [shuffled(islice(dealt, trials), rng) for _ in range(self.sheets)]
        return [with_catch_trials(judged, finished, sheet, self, rng) for sheet, judged in enumerate(sheets)]


def pairwise_decks(finished: list[list[int]], rng: np.random.Generator) -> Iterator[list[Trial]]:
    """Each two methods on each pair, once a deck; in one deck either method of two is left on half of the pairs."""
    methods = sorted(set(chain.from_iterable(finished)))
    duels = [tuple(duel) for duel in rng.permutation(list(combinations(methods, 2))).tolist()]
    pairs = rng.permutation(len(finished)).tolist()
    swapped = np.array([rng.permutation(len(pairs)) % 2 for _ in duels], dtype=bool)
    cells = [
        (duel, pair) for duel, pair in diagonal(len(duels), len(pairs)) if {*duels[duel]} <= {*finished[pairs[pair]]}
    ]
    for deck in count():
        yield [
            Trial(pair=pairs[pair], methods=duels[duel][:: -1 if swapped[duel, pair] ^ bool(deck % 2) else 1])
            for duel, pair in cells
        ]


def best_of_decks(finished: list[list[int]], rng: np.random.Generator) -> Iterator[list[Trial]]:
    """Each pair with all its edits, once a deck; from trial to trial every edit moves on by one place."""
    pairs = rng.permutation(len(finished)).tolist()
    methods = len(finished[0])
    orders = [rng.permutation(methods) for _ in range(0, len(pairs), methods)]
    for deck in count():
        yield [
            Trial(pair=pair, methods=tuple(np.roll(orders[place // methods], place + deck).tolist()))
            for place, pair in enumerate(pairs)
        ]


def diagonal(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Every cell of a table once, along its diagonals: any stretch spreads over rows and columns."""
    around = lcm(rows, columns)
    for step in range(rows * columns):
        yield (step + step // around) % rows, step % columns


def shuffled(trials: Iterator[Trial], rng: np.random.Generator) -> list[Trial]:
    """The same trials in random order."""
    listed = list(trials)
    return [listed[i] for i in rng.permutation(len(listed))]


def with_catch_trials(
    judged: list[Trial], finished: list[list[int]], sheet: int, plan: Plan, rng: np.random.Generator
) -> list[Trial]:
    """Broken clips somewhere in each stretch of the sheet, and at its end early trials again, turned around."""
    trials = list(judged)
    catch = broken_pair if plan.design == "pairwise" else broken_but_one
    stretch = len(judged) // max(plan.broken, 1) + 1
    for i, pair in enumerate(islice(cycle(rng.permutation(with_broken_clip(len(finished))).tolist()), plan.broken)):
        trials.insert(i * stretch + int(rng.integers(stretch)), catch(pair, finished[pair], sheet + i, rng))
    early = [i for i, trial in enumerate(trials) if trial.kind == "judged"][: len(judged) // 2]
    again = rng.permutation(early)[: plan.repeats].tolist()
    tail = [replace(trials[i], methods=trials[i].methods[::-1], kind="repeat", repeats=i) for i in again]
    return spread_at_the_end(trials, tail, rng)


def with_broken_clip(pairs: int) -> list[int]:
    """The pairs of which there is a broken clip: a handful is enough for all sheets."""
    return list(range(min(pairs, MOST_BROKEN)))


def broken_pair(pair: int, finished: list[int], turn: int, rng: np.random.Generator) -> Trial:
    """An edit beside a broken clip, on the right of it every second time."""
    shown = (int(rng.choice(finished)), BROKEN)
    return Trial(pair=pair, methods=shown[:: -1 if turn % 2 else 1], kind="broken")


def broken_but_one(pair: int, finished: list[int], turn: int, rng: np.random.Generator) -> Trial:
    """One edit among broken clips."""
    shown = [BROKEN] * len(finished)
    shown[turn % len(shown)] = int(rng.choice(finished))
    return Trial(pair=pair, methods=tuple(shown), kind="broken")


def spread_at_the_end(trials: list[Trial], tail: list[Trial], rng: np.random.Generator) -> list[Trial]:
    """`tail` among the last quarter of the trials, in its order."""
    head = len(trials) - len(trials) // 4
    places = np.sort(rng.integers(head, len(trials) + 1, len(tail)))
    result = list(trials)
    for moved, (place, trial) in enumerate(zip(places.tolist(), tail)):
        result.insert(place + moved, trial)
    return result
