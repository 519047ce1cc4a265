"""What a user study adds to a table of methods: its right half, in the paper's table 1."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from evaluation.study.analysis import Analysis, analyse_files
from evaluation.study.render import LEVEL, SIMULATED, caption
from experiments.findings import BETTER, COLUMNS, UNDECIDED, WORSE


@dataclass(frozen=True, kw_only=True)
class RightHalf:
    """Nothing, where there was no study.

    rows      of a summary: how often each method was, or would be, chosen best, in percent
    verdicts  as of `experiments.findings`, of each question
    notes     what has to be said beside the numbers
    """

    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    verdicts: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    notes: Sequence[str] = ()


def right_half(answers: Sequence[Path] | None, methods: Mapping[str, str], reference: str) -> RightHalf:
    """What a study's answers say of methods, which are given as `labels` takes them."""
    if not answers:
        return RightHalf()
    analysis = analyse_files(answers)
    known = labels(analysis.key.methods, methods)
    return RightHalf(
        rows=rows(analysis, known), verdicts=verdicts(analysis, known, reference), notes=notes(analysis, known)
    )


def labels(names: Iterable[str], methods: Mapping[str, str]) -> dict[str, str]:
    """A study's names of methods, each with the label that it has in the table; a method of another kind has none.

    A study calls a method as its run's folder is called (`method=flatten,seed=0`), unless somebody named it.

    methods  labels by what chooses the method (`flatten`)
    """
    known = methods | {label.lower(): label for label in methods.values()}
    found = {}
    for name in names:
        words = [part.rpartition("=")[2].strip().lower() for part in name.split(",")]
        found[name] = next((known[word] for word in words if word in known), None)
    return {name: label for name, label in found.items() if label}


def rows(analysis: Analysis, known: Mapping[str, str]) -> pd.DataFrame:
    """See `RightHalf`."""
    found = []
    for row in analysis.methods[analysis.methods.method.isin(list(known))].to_dict("records"):
        shares = {"mean": row["share"], "low": row["share_low"], "high": row["share_high"]}
        of_row = {"method": known[row["method"]], "metric": head(row["question"], analysis), "better": "higher"}
        found.append(of_row | {name: 100 * share for name, share in shares.items()})
    return pd.DataFrame(found)


def head(question: str, analysis: Analysis) -> str:
    """What heads a question's column, as in the paper's table 1; of simulated raters it says so."""
    return f"user study: {question} (%)" + (", SIMULATED RATERS" if analysis.simulated else "")


def verdicts(analysis: Analysis, known: Mapping[str, str], reference: str) -> pd.DataFrame:
    """See `RightHalf`. Certain is what is significant after Holm's correction, which is over the whole study."""
    found = []
    for duel in analysis.duels.to_dict("records"):
        pair = known.get(duel["first"]), known.get(duel["second"])
        if reference not in pair or None in pair:
            continue
        other, sign = (pair[1], -1) if pair[0] == reference else (pair[0], 1)
        certain = BETTER if sign * duel["difference"] > 0 else WORSE
        said = certain if duel["p_holm"] < LEVEL else UNDECIDED
        by = f"p = {duel['p_holm']:.2g}"
        found.append((head(duel["question"], analysis), other, said, by, len(analysis.key.pairs)))
    return pd.DataFrame(found, columns=COLUMNS)


def notes(analysis: Analysis, known: Mapping[str, str]) -> list[str]:
    """See `RightHalf`."""
    unknown = [name for name in analysis.key.methods if name not in known]
    return [
        *([SIMULATED] if analysis.simulated else []),
        f"User study: {caption(analysis)} {analysis.counted} of {analysis.sessions} raters count",
        *([f"The study's {', '.join(unknown)} is no row of this table"] if unknown else []),
    ]
