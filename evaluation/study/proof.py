"""Whether the analysis finds what is known: `python -m evaluation.study.proof [--studies 100]`.

Simulated raters with given strengths answer one study after another. How often do the 95 % intervals hold the truth,
and how often is a study of equal methods called significant?
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from assd.errors import one_sentence, require
from evaluation.study.analysis import Analysis, analyse
from evaluation.study.blind import Blind
from evaluation.study.intervals import CONFIDENCE
from evaluation.study.key import Key
from evaluation.study.plan import Design, Plan
from evaluation.study.simulate import Raters
from evaluation.study.strengths import davidson

LEVEL = 0.05  # of Holm's p
POPULATION = 20_000  # raters and videos drawn for the strengths that all of them have together
STRENGTHS = np.array(  # of six methods in three questions
    [[0.9, 0.4, 0.1, -0.2, -0.5, -0.7], [0.5, 0.5, 0.0, 0.0, -0.5, -0.5], [1.2, 0.0, 0.0, 0.0, -0.6, -0.6]]
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a study."""

    raters: int = 40
    pairs: int = 30
    trials: int = 24
    design: Design = "pairwise"

    def key(self, methods: int, seed: int) -> Key:
        """A study of that size, without clips."""
        plan = Plan(design=self.design, sheets=self.raters, trials=self.trials, broken=3, repeats=2, seed=seed)
        names = [f"method {number}" for number in range(methods)]
        return Blind(f"{seed + 1:064x}", {f"pair {number}": names for number in range(self.pairs)}).key(plan)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What many simulated studies came to.

    held: for each study and each strength, whether its 95 % interval holds it.
    together: for each study, whether all strengths lie in intervals widened by Bonferroni to hold them all at 95 %.
    significant: for each study, whether any difference is significant after Holm's correction.
    """

    held: Bool[np.ndarray, "studies strengths"]
    together: Bool[np.ndarray, " studies"]
    significant: Bool[np.ndarray, " studies"]

    def __str__(self) -> str:
        studies, strengths = self.held.shape
        return (
            f"{self.held.mean():.1%} of {studies * strengths} intervals hold the truth; "
            f"each strength's in {self.held.sum(0).min()} to {self.held.sum(0).max()} of {studies} studies; "
            f"all {strengths} together, by Bonferroni, in {self.together.sum()} of {studies}; "
            f"significant at all: {self.significant.sum()} of {studies}"
        )


def run_studies(raters: Raters, studies: int, size: Size) -> Found:
    """That many studies, each with raters and videos of its own."""
    truth = population(raters).ravel()
    held, together, significant = zip(*(judge(analysis, truth) for analysis in analyses(raters, studies, size)))
    return Found(held=np.array(held), together=np.array(together), significant=np.array(significant))


def analyses(raters: Raters, studies: int, size: Size) -> Iterator[Analysis]:
    """One after another."""
    for seed in range(studies):
        key = size.key(raters.strengths.shape[-1], seed)
        yield analyse(raters.sessions(key, np.random.default_rng(seed)), [], key, resamples=200)


def judge(analysis: Analysis, truth: Float[np.ndarray, " strengths"]) -> tuple[np.ndarray, bool, bool]:
    """See `Found`."""
    table = analysis.methods
    miss = np.abs(table.strength.to_numpy() - truth)
    reach = (table.strength_high - table.strength).to_numpy()
    freedom = min(analysis.counted, len(analysis.key.pairs)) - 1
    one, all_ = (stats.t.ppf(1 - (1 - CONFIDENCE) / tails, freedom) for tails in (2, 2 * len(truth)))
    return miss <= reach, bool((miss <= reach * all_ / one).all()), bool((analysis.duels.p_holm < LEVEL).any())


def population(raters: Raters) -> Float[np.ndarray, "questions methods"]:
    """The strengths that all raters and all videos together have: what a study estimates, however large.

    Tastes that differ draw the outcomes towards each other, so these are nearer to 0 than the strengths of one rater.
    """
    methods = raters.strengths.shape[-1]
    first, second = np.triu_indices(methods, 1)
    spread = np.hypot(raters.rater_spread, raters.video_spread)
    theta = raters.strengths + np.random.default_rng(0).normal(0, spread, (POPULATION, *raters.strengths.shape))
    a, b = theta[..., first], theta[..., second]
    weights = np.stack([np.exp(a), raters.ties * np.exp((a + b) / 2), np.exp(b)], -1)
    probability = (weights / weights.sum(-1, keepdims=True)).mean(0)
    return davidson(probability * POPULATION, list(zip(first.tolist(), second.tolist())), methods)[0]


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--raters", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=30)
    options = parser.parse_args()
    require(options.studies > 0, f"--studies is {options.studies}: it has to be 1 or more")
    size = Size(raters=options.raters, pairs=options.pairs)
    print(f"SIMULATED RATERS: {options.studies} studies of {size.raters} raters, {size.pairs} pairs, 6 methods")
    for name, strengths in (("known strengths", STRENGTHS), ("equal methods", np.zeros_like(STRENGTHS))):
        for spread in (0.0, 0.5):
            raters = Raters(strengths=strengths, rater_spread=spread, video_spread=spread)
            tastes = f"raters and videos differ by {spread}" if spread else "raters and videos alike"
            print(f"{name}, {tastes}: {run_studies(raters, options.studies, size)}", flush=True)


if __name__ == "__main__":
    main()
