"""Simulated raters, to test the analysis with: every answer of theirs says that it is simulated."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from evaluation.study.answers import Session
from evaluation.study.key import NO_DIFFERENCE, Key, KeyTrial

SLIP = 0.03  # the share of catch answers in which an attentive rater errs


@dataclass(frozen=True, kw_only=True)
class Raters:
    """Raters who answer by Davidson's model.

    Args:
        strengths: theta of each question and method, in the order of the key's methods.
        ties: nu; 0 never ties.
        rater_spread: standard deviation of what each rater adds to each theta for a taste of his own.
        video_spread: the same of each pair, which some methods suit and others do not.
    """

    strengths: Float[np.ndarray, "questions methods"]
    ties: float = 0.5
    rater_spread: float = 0.0
    video_spread: float = 0.0

    def sessions(self, key: Key, rng: np.random.Generator) -> list[Session]:
        """One rater for each sheet."""
        suits = {pair: rng.normal(0, self.video_spread, self.strengths.shape) for pair in key.pairs}
        return [self.session(key, sheet, suits, rng) for sheet in range(len(key.sheets))]

    def session(self, key: Key, sheet: int, suits: dict[str, np.ndarray], rng: np.random.Generator) -> Session:
        """A whole sheet answered."""
        taste = self.strengths + rng.normal(0, self.rater_spread, self.strengths.shape)
        index = {method: number for number, method in enumerate(key.methods)}
        session = Session(f"simulated-{sheet}", sheet)
        for trial in key.sheets[sheet]:
            if trial.kind == "broken":
                places = [attentive(trial, key, rng) for _ in key.questions]
            else:
                shown = [index[str(key.clips[clip])] for clip in trial.clips]
                theta = taste[:, shown] + suits[trial.pair][:, shown]
                places = [choose(row, self.ties if key.design == "pairwise" else 0.0, rng) for row in theta]
            session.answers[trial.id] = simulated_answer(key, session, trial, places, seconds=20.0)
        return session


def choose(theta: Float[np.ndarray, " shown"], ties: float, rng: np.random.Generator) -> int | None:
    """A place, or no difference, by Davidson's model; of more than two, by Luce's choice."""
    weights = np.append(np.exp(theta), ties * np.exp(theta.mean()))
    place = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum()))
    return place if place < len(theta) else NO_DIFFERENCE


def attentive(trial: KeyTrial, key: Key, rng: np.random.Generator) -> int:
    """The edit among broken clips; at a slip, any."""
    intact = next(place for place, clip in enumerate(trial.clips) if key.clips[clip] is not None)
    return int(rng.integers(len(trial.clips))) if rng.random() < SLIP else intact


def random_clicker(key: Key, sheet: int, rng: np.random.Generator, with_ties: bool = True) -> Session:
    """A rater who looks at nothing."""
    session = Session(f"clicker-{sheet}", sheet)
    for trial in key.sheets[sheet]:
        options = [*range(len(trial.clips)), *([NO_DIFFERENCE] if with_ties and key.design == "pairwise" else [])]
        places = [options[rng.integers(len(options))] for _ in key.questions]
        session.answers[trial.id] = simulated_answer(key, session, trial, places, seconds=20.0)
    return session


def simulated_answer(
    key: Key, session: Session, trial: KeyTrial, places: list[int | None], seconds: float
) -> dict[str, Any]:
    """As the page would send it, and marked."""
    return dict(
        study=key.study,
        rater=session.rater,
        sheet=session.sheet,
        signature=key.signatures[session.sheet],
        trial=trial.id,
        clips=trial.clips,
        choices=dict(zip(key.questions, places)),
        seconds=seconds,
        simulated=True,
    )
