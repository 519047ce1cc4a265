"""An analysis as files: study.md, study.tex, study.csv, duels.csv, excluded.csv and study.png.

Whatever was made from simulated raters says so.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from evaluation.study.analysis import Analysis
from evaluation.tables import escape_latex

SIMULATED = "SIMULATED RATERS: no person answered. For tests only."
LEVEL = 0.05
INK, QUIET = "#3556c8", "#8a919d"


def write_all(analysis: Analysis, folder: Path) -> str:
    """Writes all files into the folder; returns the Markdown text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(analysis)
    (folder / "study.md").write_text(text, encoding="utf-8")
    (folder / "study.tex").write_text(latex(analysis), encoding="utf-8")
    table(analysis).to_csv(folder / "study.csv", index=False)
    marked(analysis.duels, analysis).to_csv(folder / "duels.csv", index=False)
    excluded(analysis).to_csv(folder / "excluded.csv", index=False)
    plot(analysis).savefig(folder / "study.png", dpi=150)
    return text


def marked(table: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """With a column that says whether raters were simulated."""
    return table.assign(simulated=analysis.simulated)


def table(analysis: Analysis) -> pd.DataFrame:
    """A row per question and method: what the comparison of methods reads. Shares are between 0 and 1."""
    return marked(analysis.methods.assign(raters=analysis.counted, design=analysis.key.design), analysis)


def excluded(analysis: Analysis) -> pd.DataFrame:
    """A row per rater who does not count, and why."""
    rows = [(rater, "; ".join(reasons)) for rater, reasons in analysis.excluded.items()]
    return marked(pd.DataFrame(rows, columns=["rater", "reasons"]), analysis)


# ---- Sentences.


def summary(analysis: Analysis) -> list[str]:
    """Who counts and why others do not, how raters agree, what is certain."""
    pairs = "the best of all" if analysis.key.design == "best_of" else "two at a time"
    sentences = [
        f"{analysis.counted} of {analysis.sessions} raters count; {analysis.judged} judgements of edits, {pairs}.",
        exclusions(analysis),
        "Krippendorff's alpha: " + ", ".join(f"{q} {alpha:.2f}" for q, alpha in analysis.agreement.items()) + ".",
        differences(analysis),
    ]
    if analysis.refused:
        sentences.append(f"{len(analysis.refused)} answers were refused, the first: {analysis.refused[0]}.")
    return sentences


def exclusions(analysis: Analysis) -> str:
    """How many raters are excluded, and for what."""
    if not analysis.excluded:
        return "Nobody is excluded."
    kinds = Counter(
        reason.split(" ")[0].rstrip(":") for reasons in analysis.excluded.values() for reason in reasons[:1]
    )
    words = {"unfinished": "did not finish", "preferred": "failed the catch trials", "took": "were too fast"}
    return f"Excluded: {', '.join(f'{count} {words[kind]}' for kind, count in kinds.items())} (excluded.csv)."


def differences(analysis: Analysis) -> str:
    """How many differences are certain."""
    certain = analysis.duels[analysis.duels.p_holm < LEVEL]
    of = f"{len(certain)} of {len(analysis.duels)} differences are significant after Holm's correction"
    if certain.empty:
        return f"{of}: the study shows no method to be better than another."
    best = [
        f"{question}: {', '.join(f'{name} beats {count}' for name, count in Counter(winners(rows)).most_common())}"
        for question, rows in certain.groupby("question", sort=False)
    ]
    return f"{of}. {'; '.join(best)}."


def winners(rows: pd.DataFrame) -> list[str]:
    """The stronger method of each difference."""
    return np.where(rows.difference > 0, rows["first"], rows["second"]).tolist()


# ---- Tables.


def percent(share: float, low: float, high: float) -> str:
    """`24.3 [19.0, 30.1]`."""
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def grid(analysis: Analysis, best: str) -> pd.DataFrame:
    """Methods by questions: the share chosen best with its interval, the largest put into the form `best`."""
    cells = {}
    for question, rows in analysis.methods.groupby("question", sort=False):
        texts = [percent(*row) for row in rows[["share", "share_low", "share_high"]].itertuples(index=False)]
        top = rows.share == rows.share.max()
        cells[str(question).capitalize()] = [best.format(t) if is_best else t for t, is_best in zip(texts, top)]
    return pd.DataFrame(cells, index=pd.Index(analysis.key.methods, name="method"))


def caption(analysis: Analysis) -> str:
    """What a cell is."""
    if analysis.key.design == "best_of":
        return "How often each method was chosen best, in percent, with 95 % intervals over raters and videos."
    return (
        "How often each method would be chosen best of all by its strength in Davidson's model of the comparisons, in "
        "percent, with 95 % intervals over raters and videos."
    )


def markdown(analysis: Analysis) -> str:
    """Tables and sentences for people."""
    parts = [
        f"**{SIMULATED}**" if analysis.simulated else "",
        f"{caption(analysis)} Best **bold**.",
        grid(analysis, "**{}**").to_markdown(),
        "\n".join(f"- {sentence}" for sentence in summary(analysis)),
        "Counts, and the share preferred among judgements that saw a difference, in percent, with the exact 95 % "
        "interval of independent judgements:",
        win_rates(analysis).to_markdown(index=False, disable_numparse=True),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def win_rates(analysis: Analysis) -> pd.DataFrame:
    """How often each method was preferred, in each question."""
    rows = analysis.methods[["win_rate", "win_low", "win_high"]].itertuples(index=False)
    columns = ["question", "method", "preferred", "no_difference", "other_preferred"]
    table = analysis.methods[columns].assign(share=[percent(*row) for row in rows])
    return table.rename(columns=lambda name: name.replace("_", " "))


def latex(analysis: Analysis) -> str:
    """The table of shares, for booktabs."""
    shares = grid(analysis, r"\textbf{{{}}}")
    lines = [
        f"% {SIMULATED}" if analysis.simulated else "",
        rf"% {caption(analysis).replace('%', 'percent')}",
        rf"\begin{{tabular}}{{l{'c' * len(shares.columns)}}}",
        r"\toprule",
        " & ".join(["Method", *shares.columns]) + r" \\",
        r"\midrule",
        *(" & ".join([escape_latex(str(row[0])), *row[1:]]) + r" \\" for row in shares.itertuples()),
        *(
            [r"\midrule", rf"\multicolumn{{{len(shares.columns) + 1}}}{{c}}{{\textbf{{{SIMULATED}}}}} \\"]
            * analysis.simulated
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


# ---- The plot.


def plot(analysis: Analysis) -> Figure:
    """A panel for each question: every method's share with its interval, and where all would be if they were equal."""
    questions, methods = analysis.key.questions, analysis.key.methods
    figure = Figure(figsize=(3.2 * len(questions), 0.9 + 0.42 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(questions), sharex=True, sharey=True, squeeze=False)[0]
    order = analysis.methods.groupby("method").share.mean().sort_values().index
    for panel, question in zip(panels, questions):
        rows = analysis.methods[analysis.methods.question == question].set_index("method").loc[order]
        share = 100 * rows.share
        reach = [share - 100 * rows.share_low, 100 * rows.share_high - share]
        panel.axvline(100 / len(methods), color=QUIET, linewidth=1, linestyle=":")
        panel.errorbar(share, range(len(rows)), xerr=reach, fmt="o", color=INK, capsize=3, markersize=5)
        panel.set(title=question.capitalize(), yticks=range(len(rows)), yticklabels=order, xlabel="chosen best, %")
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlim(left=0)
    if analysis.simulated:
        figure.suptitle(SIMULATED, color="#b3261e", fontweight="bold")
    return figure
