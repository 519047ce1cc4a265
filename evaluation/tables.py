"""Tables from any number of runs: `python -m evaluation.tables RUNS... [--format md|latex|csv|html] [--paper]`.

One row per method: runs that differ in their seed alone are one row, each pair's value the mean over seeds. A cell is
the mean over pairs with its 95 % bootstrap interval, pairs on one clip drawn together. The unedited source is always a
row. With `--reference`, a second table has the paired differences to one row. Best values are bold, second best
underlined (in Markdown, italic), ranked on the pairs that every method has.
"""

import argparse
import html
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from assd.errors import one_sentence, require
from assd.files import write_text
from evaluation import intervals
from evaluation.comparison import collect, failures, is_unedited, ordered, published, summarize
from evaluation.scores import EDITED, scored_runs, values

FORMATS = ("md", "latex", "csv", "html")
MARKS: dict[str, tuple[str, str]] = {  # best, second best
    "md": ("**{}**", "*{}*"),
    "latex": (r"\textbf{{{}}}", r"\underline{{{}}}"),
    "html": ("<b>{}</b>", "<u>{}</u>"),
}
ARROWS = {"higher": "↑", "lower": "↓"}
MEAN = ("mean", "low", "high")
DIFFERENCE = ("difference", "difference_low", "difference_high")


def interval(row: pd.Series, columns: tuple[str, str, str]) -> str:
    """The text of a cell."""
    return intervals.with_interval(intervals.Mean(*(row.get(name, np.nan) for name in columns), count=0))


def places(rows: pd.DataFrame) -> dict[str, int]:
    """1 for the best method of one metric, 2 for the second best; only among methods that edited, if there are two.

    Ranked on the pairs that all of them have: a method that failed on the hard ones is not the better for it.
    """
    edited = rows[~rows.method.map(is_unedited) & rows["mean"].notna()]
    measured = "pairs" in edited and edited.pairs.notna().any()
    if len(edited) < 2 or (measured and edited.mean_shared.isna().any()):
        return {}
    by = "mean_shared" if measured else "mean"
    ranks = edited[by].rank(method="min", ascending=edited.better.iloc[0] == "lower")
    return {method: int(rank) for method, rank in zip(edited.method, ranks) if rank <= 2}


def mark(rows: pd.DataFrame, texts: pd.Series, marks: tuple[str, str]) -> pd.Series:
    """Best and second best set off."""
    forms = {method: marks[place - 1] for method, place in places(rows).items()}
    marked = [forms.get(method, "{}").format(text) for method, text in zip(rows.method, texts)]
    return pd.Series(marked, index=texts.index)


def layout(
    summary: pd.DataFrame, escape: Callable[[str], str], marks: tuple[str, str], columns: tuple[str, str, str] = MEAN
) -> pd.DataFrame:
    """One row per method, one column per metric, cells as text."""
    cells = {}
    for (metric, better), rows in summary.groupby(["metric", "better"], sort=False):
        texts = rows.apply(interval, axis=1, columns=columns)
        if columns == MEAN:
            texts = mark(rows, texts, marks)
        cells[f"{escape(str(metric))} {ARROWS[better]}"] = dict(zip(rows.method.map(escape), texts))
    table = pd.DataFrame(cells, index=[escape(method) for method in ordered(summary.method)])
    counts = "pairs" if columns == MEAN else "difference_pairs"
    if counts in summary:
        table["pairs"] = [pair_count(summary[summary.method == method][counts]) for method in ordered(summary.method)]
    return table.fillna(intervals.UNKNOWN).rename_axis("method")


def pair_count(pairs: pd.Series) -> str:
    """How many pairs a method's means are over: `4`, or `2 to 4` where not every metric has a meaning for each."""
    if pairs.isna().all():
        return ""
    few, many = int(pairs.min()), int(pairs.max())
    return str(many) if few == many else f"{few} to {many}"


def escape_latex(text: str) -> str:
    """Characters with a meaning in LaTeX."""
    special = {c: rf"\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, c) for c in text.replace("\\", "/"))


def render(summary: pd.DataFrame, form: str, reference: str | None = None, notes: list[str] | None = None) -> str:
    """The table as text; with a reference, the differences below it. `csv` is the tidy table itself."""
    if form == "csv":
        return summary.to_csv(index=False)
    parts = [render_one(summary, form) if len(summary) else heading("No method has any value.", form)]
    if reference is not None and DIFFERENCE[0] in summary:
        parts.append(render_differences(summary, form, f"Paired difference to {reference}"))
    if "pairs" in summary and summary[summary.pairs > 0].groupby("metric").pairs.nunique().gt(1).any():
        notes = ["Best and second best are marked by the pairs that every method has", *(notes or [])]
    return "\n\n".join([*parts, *(heading(note, form) for note in notes or [])]) + "\n"


def render_differences(summary: pd.DataFrame, form: str, title: str) -> str:
    """The paired differences to the method that `summarize` took for reference, under a line that says to which."""
    compared = summary[summary.difference.notna()]
    if compared.empty:
        return heading(f"{title}: no other method has a pair with it.", form)
    return f"{heading(title, form)}\n\n{render_one(compared, form, DIFFERENCE)}"


def heading(text: str, form: str) -> str:
    """A sentence between tables."""
    if form == "latex":
        return escape_latex(text) + r"\par"
    return f"<p>{html.escape(text)}</p>" if form == "html" else text


def render_one(summary: pd.DataFrame, form: str, columns: tuple[str, str, str] = MEAN) -> str:
    """One table by pandas."""
    if form == "latex":
        table = layout(summary, escape_latex, MARKS[form], columns).reset_index()
        latex = table.style.hide(axis="index").to_latex(hrules=True)
        return latex.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$")
    if form == "html":
        return layout(summary, html.escape, MARKS[form], columns).to_html(escape=False, border=0)
    table = layout(summary, lambda text: text.replace("|", r"\|"), MARKS[form], columns)
    return table.to_markdown(disable_numparse=True)


def means_table(title: str, scores: pd.DataFrame, clips: Mapping[str, str]) -> Table:
    """Means over pairs of the unedited source, its reconstruction, and the edits with their interval.

    clips  of pairs, as `clips_of` has them
    """
    pairs, scored = scores.pair.nunique(), values(scores)
    videos = [video for video in ("source", "reconstruction") if (scored.video == video).any()]
    table = Table("metric", *videos, "edited [95 % interval]", "pairs", title=Text(title), title_justify="left")
    for (metric, better), rows in scored.groupby(["metric", "better"], sort=False):
        by_video = {video: intervals.mean(part.set_index("pair").value, clips) for video, part in rows.groupby("video")}
        if EDITED not in by_video:
            continue
        others = [
            intervals.number(by_video[video].mean) if video in by_video else intervals.UNKNOWN for video in videos
        ]
        edited = by_video[EDITED]
        table.add_row(
            Text(f"{metric} {ARROWS[better]}"), *others, intervals.with_interval(edited), f"{edited.count} of {pairs}"
        )
    return table


def print_failures(console: Console, scores: pd.DataFrame) -> None:
    """What has no score in a run, and why."""
    for sentence in failures(scores.assign(method=scores.video)):
        console.print(Text(sentence, style="red"))


def deliver(text: str, form: str, notes: list[str], output: Path | None) -> None:
    """Prints a table, or writes it to a file; beside a table for programs, which has no place for them, the notes."""
    if form == "csv" and notes:
        print("\n".join(notes), file=sys.stderr)
    if output:
        write_text(output, text)
    else:
        print(text)


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--format", choices=FORMATS, default="md")
    parser.add_argument("--reference", metavar="METHOD", help="the row to which paired differences are taken")
    parser.add_argument("--metric", action="append", help="keep metrics whose name holds this text; repeatable")
    parser.add_argument("--paper", action="store_true", help="add the rows of the paper's table 1, as published")
    parser.add_argument("--output", type=Path, help="write here instead of printing")
    options = parser.parse_args()
    scores = collect(scored_runs(options.runs))
    if options.metric:
        known = values(scores).metric.unique()
        kept = [name for name in known if any(text.lower() in name.lower() for text in options.metric)]
        require(bool(kept), f"--metric {options.metric} is in none of: {'; '.join(known)}")
        scores = scores[scores.metric.isin([*kept, ""])]
    summary = summarize(scores, options.reference)
    notes = failures(scores)
    if options.paper:
        summary = pd.concat([summary, published()], ignore_index=True)
    deliver(render(summary, options.format, options.reference, notes), options.format, notes, options.output)


if __name__ == "__main__":
    main()
