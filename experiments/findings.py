"""What a table says of one method against the others, in words that are made from its numbers alone."""

from typing import Any

import pandas as pd

from evaluation import intervals
from evaluation.comparison import PAPER_CSV, is_unedited

FEWEST = 6  # pairs that differ: of five, all agree by chance in one case of 16 (sign test: p = 0.06)
BETTER, WORSE, EQUAL, UNDECIDED = "better", "worse", "equal on every pair", "undecided"
OPPOSITE = {BETTER: WORSE, WORSE: BETTER}
COLUMNS = ["measure", "method", "verdict", "by", "pairs"]


def metric_verdicts(summary: pd.DataFrame) -> pd.DataFrame:
    """A row per metric and method that edited: whether it is better or worse than the reference of `summarize`.

    That is certain where the 95 % interval of the mean paired difference, `by`, excludes 0, and at least FEWEST pairs
    are `unequal`.
    """
    compared = summary[summary.difference.notna() & ~summary.method.map(is_unedited)]
    rows = [
        (row.metric, row.method, verdict(row), difference(row), row.difference_pairs, row.difference_unequal)
        for row in compared.itertuples()
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "unequal"])


def verdict(row: Any) -> str:
    """Of one row of `summarize`."""
    if row.difference_unequal == 0:
        return EQUAL
    if row.difference_unequal < FEWEST or row.difference_low <= 0 <= row.difference_high:
        return UNDECIDED
    return BETTER if (row.difference > 0) == (row.better == "higher") else WORSE


def difference(row: Any) -> str:
    """`+0.012 [0.002, 0.021]`."""
    text = intervals.with_interval(intervals.Mean(row.difference, row.difference_low, row.difference_high, count=0))
    return text if row.difference < 0 else f"+{text}"


def paragraph(metrics: pd.DataFrame, study: pd.DataFrame, reference: str) -> str:
    """All in one paragraph: what is certain of each measure, what is not, and how far the paper's orders hold."""
    if metrics.empty and study.empty:
        return f"There is nothing to compare {reference} with."
    sentences = []
    if not metrics.empty:
        sentences.append(
            f"The other methods against {reference}, by the mean paired difference over {span(metrics.pairs)}, "
            f"and its 95 % bootstrap interval."
        )
        sentences += [measure(str(name), rows) for name, rows in metrics.groupby("measure", sort=False)]
        sentences += cautions(metrics)
    if not study.empty:
        sentences.append("By the study, p after Holm's correction.")
        sentences += [measure(str(name), rows) for name, rows in study.groupby("measure", sort=False)]
    return " ".join([*sentences, *orders(pd.concat([metrics, study]), reference)])


def measure(name: str, rows: pd.DataFrame) -> str:
    """`CLIP text: better FLATTEN (+0.1 [0.0, 0.2]); undecided TokenFlow (...).`"""
    parts = []
    for said in (BETTER, WORSE, EQUAL, UNDECIDED):
        found = rows[rows.verdict == said]
        if len(found):
            who = [row.method if said == EQUAL else f"{row.method} ({row.by})" for row in found.itertuples()]
            parts.append(f"{'' if said in (EQUAL, UNDECIDED) else 'certainly '}{said} {', '.join(who)}")
    return f"{name}: {'; '.join(parts)}."


def cautions(metrics: pd.DataFrame) -> list[str]:
    """Where the numbers are too few to say anything, and how many of the certain ones chance would give."""
    judged, few = metrics[metrics.unequal >= FEWEST], metrics[metrics.unequal.between(1, FEWEST - 1)]
    named = ", ".join(f"{measure} ({', '.join(rows.method)})" for measure, rows in few.groupby("measure", sort=False))
    sentences = [f"Where fewer than {FEWEST} pairs differ nothing is called certain: {named}."] if named else []
    by_chance = round((1 - intervals.CONFIDENCE) * len(judged))
    if by_chance:
        sentences.append(f"Of {len(judged)} such intervals about {by_chance} would exclude 0 by chance alone.")
    return sentences


def orders(verdicts: pd.DataFrame, reference: str) -> list[str]:
    """How often the paper's order of the reference and another method, in its table 1, is found here too."""
    paper = pd.read_csv(PAPER_CSV, index_col="method")
    found: dict[str, list[str]] = {"same": [], "other": [], UNDECIDED: []}
    for row in verdicts[verdicts.measure.isin(paper.columns) & verdicts.method.isin(paper.index)].itertuples():
        published = BETTER if paper[row.measure][row.method] > paper[row.measure][reference] else WORSE
        kind = "same" if row.verdict == published else "other" if row.verdict == OPPOSITE[published] else UNDECIDED
        found[kind].append(f"{row.method} by {row.measure}")
    count = sum(map(len, found.values()))
    if not count:
        return []
    other = f" ({', '.join(found['other'])})" if found["other"] else ""
    return [
        f"Of {count} orders of {reference} and another method in the paper's table 1, {len(found['same'])} certainly "
        f"hold here, {len(found['other'])} certainly do not{other}, and {len(found[UNDECIDED])} are undecided."
    ]


def span(counts: pd.Series) -> str:
    """`1 pair`, `6 pairs`, or `5 to 6 pairs`."""
    few, many = int(counts.min()), int(counts.max())
    if few < many:
        return f"{few} to {many} pairs"
    return "1 pair" if many == 1 else f"{many} pairs"
