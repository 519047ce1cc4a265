"""Intervals and tests for judgements that share raters and videos, and exact ones for single counts.

Judgements of one rater are alike, and so are judgements of one video. A bootstrap over raters keeps the first likeness,
one over videos the second; each counts the variance of single judgements once, so a third one, over raters' judgements
of a video, is taken off: V = V_raters + V_videos - V_both (Cameron, Gelbach and Miller 2011, "Robust inference with
multiway clustering"). V is never taken to be less than either of the two.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 400
SEED = 0  # of the resampling: the same answers give the same interval

Statistic = Callable[[np.ndarray], np.ndarray]  # keeps its argument's first axis, resamples


class Crossed(NamedTuple):
    """A statistic of the counts, its standard error, and the degrees of freedom of Student's t."""

    value: np.ndarray
    error: np.ndarray
    freedom: int

    def interval(self, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """Both ends."""
        reach = stats.t.ppf((1 + confidence) / 2, self.freedom) * self.error
        return self.value - reach, self.value + reach

    def p_value(self) -> np.ndarray:
        """Of the hypothesis that the statistic is 0, two-sided."""
        size = np.abs(self.value)
        t = np.divide(size, self.error, out=np.where(size > 0, np.inf, 0.0), where=self.error > 0)
        return 2 * stats.t.sf(t, self.freedom)


class Resamples(NamedTuple):
    """An array as the judgements give it, its first axis of length 1, and resampled in three ways."""

    found: np.ndarray
    by_rater: np.ndarray
    by_video: np.ndarray
    by_both: np.ndarray
    clusters: tuple[int, int, int]  # how many raters, videos, and raters' judgements of a video there are

    def map(self, statistic: Statistic) -> "Resamples":
        """A statistic of each."""
        return Resamples(*map(statistic, self[:4]), self.clusters)

    def crossed(self) -> Crossed:
        """The array with its error."""
        raters, videos, both = (
            drawn.var(0, ddof=1) * size / (size - 1) for drawn, size in zip(self[1:4], self.clusters)
        )
        variance = np.maximum(raters + videos - both, np.maximum(raters, videos))
        return Crossed(self.found[0], np.sqrt(variance), min(self.clusters) - 1)


def resample(table: pd.DataFrame, cells: int, questions: list[str], resamples: int = RESAMPLES) -> Resamples:
    """Counts of shape (1 or resamples, questions, cells) of `table`: columns rater, pair, question, cell (a number)."""
    rng = np.random.default_rng(SEED)
    column = table.question.map(questions.index).to_numpy(int) * cells + table.cell.to_numpy(int)
    clusters = [table.rater, table.pair, table.rater + "\n" + table.pair]
    counted = [count(pd.factorize(cluster)[0], column, len(questions) * cells) for cluster in clusters]
    shape = (-1, len(questions), cells)
    drawn = [draw(rows, resamples, rng).reshape(shape) for rows in counted]
    return Resamples(counted[0].sum(0).reshape(shape), *drawn, tuple(len(rows) for rows in counted))


def count(
    cluster: Int[np.ndarray, " judgements"], column: Int[np.ndarray, " judgements"], columns: int
) -> Float[np.ndarray, "clusters columns"]:
    """How often each cluster has each column."""
    flat = np.bincount(cluster * columns + column, minlength=(cluster.max() + 1) * columns)
    return flat.reshape(-1, columns).astype(float)


def draw(
    rows: Float[np.ndarray, "clusters columns"], resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "resamples columns"]:
    """Sums over clusters drawn with replacement, as many as there are."""
    size = len(rows)
    return rng.multinomial(size, np.full(size, 1 / size), resamples) @ rows


def exact(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of Clopper and Pearson for a share; from 0 to 1 where nothing was counted."""
    if trials == 0:
        return 0.0, 1.0
    found = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Holm's correction: rejecting all below 0.05, at most 5 of 100 studies reject anything that holds."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def krippendorff_alpha(unit: pd.Series, value: pd.Series) -> float:
    """Krippendorff's alpha of nominal values: 1 is agreement, 0 is chance; NaN where no two judged the same unit.

    alpha = 1 - D_o / D_e, from the coincidence matrix: each unit's ordered pairs of values of different raters, divided
    by the number of its raters less 1.
    """
    table = pd.crosstab(unit, value).to_numpy(float)
    raters = table.sum(1)
    table, raters = table[raters > 1], raters[raters > 1]
    n = table.sum()
    if n == 0:
        return float("nan")
    agreeing = (table * (table - 1)).sum(1) / (raters - 1)
    observed = 1 - agreeing.sum() / n
    totals = table.sum(0)
    expected = 1 - (totals * (totals - 1)).sum() / (n * (n - 1))
    return float(1 - observed / expected) if expected > 0 else 1.0
