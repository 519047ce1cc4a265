"""What a study found: who counts, how strong each method is, which differences are certain, how raters agree."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from assd.errors import require
from evaluation.study.answers import Judgements, Session, answer_files, caught, find_key, judgements, read_sessions
from evaluation.study.intervals import RESAMPLES, Resamples, exact, holm, krippendorff_alpha, resample
from evaluation.study.key import Key
from evaluation.study.strengths import chosen_best, davidson, shares


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything that a table or the plot shows.

    methods: a row per question and method. `share`: how often it would be chosen best of all (pairwise: by Davidson's
        model; best-of: how often it was), `strength`: centred log of it, each with its crossed interval; `win_rate`:
        how often it was preferred among decided judgements, with its exact interval.
    duels: a row per question and two methods; `difference` of strengths, p and Holm's p over all rows.
    agreement: Krippendorff's alpha of each question.
    """

    key: Key
    simulated: bool
    sessions: int
    judged: int
    excluded: dict[str, list[str]]
    refused: list[str]
    methods: pd.DataFrame
    duels: pd.DataFrame
    agreement: dict[str, float]

    @property
    def counted(self) -> int:
        """Raters whose answers count."""
        return self.sessions - len(self.excluded)


def analyse_files(paths: Iterable[Path], key: Path | None = None) -> Analysis:
    """Reads answers and their key. Raises InputError where too few raters are left to say anything."""
    files = answer_files(paths)
    found = find_key(files, key)
    return analyse(*read_sessions(files, found), found)


def analyse(sessions: list[Session], refused: list[str], key: Key, resamples: int = RESAMPLES) -> Analysis:
    """See `Analysis`."""
    reasons = {session.rater: caught(session, key) for session in sessions}
    excluded = {rater: why for rater, why in reasons.items() if why}
    judged = judgements([session for session in sessions if not reasons[session.rater]], key)
    raters, pairs = judged.table.rater.nunique(), judged.table.pair.nunique()
    require(
        raters > 1 and pairs > 1,
        f"{raters} raters count, and they judged {pairs} pairs: an analysis needs two of each. {len(excluded)} of "
        f"{len(sessions)} raters are excluded, and {len(refused)} answers refused {[*excluded.values(), *refused][:3]}",
    )
    counts = resample(judged.table, judged.cells, judged.questions, resamples)
    theta = counts.map(lambda counts: strengths(counts, judged))
    return Analysis(
        key=key,
        simulated=any(session.simulated for session in sessions),
        sessions=len(sessions),
        judged=len(judged.table),
        excluded=excluded,
        refused=refused,
        methods=method_rows(counts.found[0], theta, judged),
        duels=duel_rows(counts.found[0], theta, judged),
        agreement=agreement(judged),
    )


def agreement(judged: Judgements) -> dict[str, float]:
    """Krippendorff's alpha of each question: did raters who saw the same edits say the same?"""
    said = judged.table.assign(value=judged.table.cell % 3 if judged.design == "pairwise" else judged.table.cell)
    rows = {question: said[said.question == question] for question in judged.questions}
    return {question: krippendorff_alpha(table.unit, table.value) for question, table in rows.items()}


def strengths(counts: np.ndarray, judged: Judgements) -> np.ndarray:
    """(resamples, questions, cells) to (resamples, questions, methods)."""
    if judged.design == "best_of":
        return chosen_best(counts)
    theta, _ = davidson(counts.reshape(*counts.shape[:-1], -1, 3), judged.duels, len(judged.methods))
    return theta


def outcomes(counts: np.ndarray, judged: Judgements) -> np.ndarray:
    """(questions, duels, 3): how often each two methods' first was preferred, neither, the second.

    Of a best-of design, the choices of either of the two.
    """
    if judged.design == "pairwise":
        return counts.reshape(len(counts), -1, 3)
    first, second = (counts[:, [duel[side] for duel in judged.duels]] for side in (0, 1))
    return np.stack([first, np.zeros_like(first), second], -1)


def method_rows(counts: np.ndarray, theta: Resamples, judged: Judgements) -> pd.DataFrame:
    """See `Analysis`."""
    strength = theta.crossed()
    share = theta.map(lambda t: logit(shares(t))).crossed()
    shown = expit(share.value) if judged.design == "pairwise" else counts / counts.sum(-1, keepdims=True)
    low, high = expit(share.interval())
    strength_low, strength_high = strength.interval()
    rows = []
    for (q, question), (m, method) in ((q, m) for q in enumerate(judged.questions) for m in enumerate(judged.methods)):
        preferred, neither, other = tally(counts[q], m, judged)
        decided = preferred + other
        win_low, win_high = exact(preferred, decided)
        rows.append(
            dict(question=question, method=method, judgements=decided + neither)
            | dict(preferred=preferred, no_difference=neither, other_preferred=other)
            | dict(share=shown[q, m], share_low=min(low[q, m], shown[q, m]), share_high=max(high[q, m], shown[q, m]))
            | dict(strength=strength.value[q, m], strength_low=strength_low[q, m], strength_high=strength_high[q, m])
            | dict(win_rate=preferred / decided if decided else np.nan, win_low=win_low, win_high=win_high)
        )
    return pd.DataFrame(rows)


def tally(counts: np.ndarray, method: int, judged: Judgements) -> tuple[int, int, int]:
    """How often one method was preferred, none, another one, in one question."""
    if judged.design == "best_of":
        return int(counts[method]), 0, int(counts.sum() - counts[method])
    totals = np.zeros(3)
    for duel, (first, second) in enumerate(judged.duels):
        found = counts[3 * duel : 3 * duel + 3]
        totals += found if first == method else found[::-1] if second == method else 0
    preferred, neither, other = totals.astype(int).tolist()
    return preferred, neither, other


def duel_rows(counts: np.ndarray, theta: Resamples, judged: Judgements) -> pd.DataFrame:
    """See `Analysis`."""
    first, second = np.array(judged.duels).T
    difference = theta.map(lambda t: t[..., first] - t[..., second]).crossed()
    low, high = difference.interval()
    p = difference.p_value()
    corrected = holm(p.ravel()).reshape(p.shape)
    found = outcomes(counts, judged).astype(int)
    rows = []
    for q, question in enumerate(judged.questions):
        for d, (a, b) in enumerate(judged.duels):
            won, neither, lost = found[q, d].tolist()
            win_low, win_high = exact(won, won + lost)
            rows.append(
                dict(question=question, first=judged.methods[a], second=judged.methods[b])
                | dict(first_preferred=won, no_difference=neither, second_preferred=lost)
                | dict(win_rate=won / (won + lost) if won + lost else np.nan, win_low=win_low, win_high=win_high)
                | dict(difference=difference.value[q, d], low=low[q, d], high=high[q, d])
                | dict(p=p[q, d], p_holm=corrected[q, d])
            )
    return pd.DataFrame(rows)
