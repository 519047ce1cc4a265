"""FiVE-Bench's table of runs on its pairs, and its folders: `python -m evaluation.five table|export`.

`table RUNS...` has one table for each edit type, and one of the macro-average, which is what FiVE-Bench publishes: the
unweighted mean over edit types of the means over pairs. `export RUN --output FOLDER` writes the edited frames as
FiVE-Bench's own code reads them, for what is not measured here: NIQE, motion fidelity (a tracker) and FiVE-Acc (a judge
that reads videos).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from assd.data.five import EDIT_TYPES, Entry, edit_type_of, manifest
from assd.data.video import read_video, write_frames
from assd.errors import one_sentence, require
from assd.runs.reader import FinishedEdit, edits_of, is_run, read_dataset
from evaluation.comparison import collect, failures, summarize
from evaluation.scores import EDITED, scored_runs, values
from evaluation.tables import FORMATS, deliver, heading, render_one

LAST_FRAME = 40  # FiVE-Bench's code scores every 8th frame that a folder holds; its protocol ends at the 40th


def by_edit_type(scores: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """The summary of each edit type that has values.

    Raises InputError for a pair that is not FiVE-Bench's, and where there is no value at all.
    """
    types = scores.pair.map(edit_type_of)
    foreign = scores.pair[types.isna()]
    require(foreign.empty, f"{foreign.head(1).sum()} is no pair of dataset=five: give runs with +experiment=five")
    scored = values(scores)
    why = "; ".join(failures(scores)) or "no metric has a meaning for their edits"
    require(not scored.empty, f"these runs hold no value, of which a table has the means: {why}")
    return {int(kind): summarize(part) for kind, part in scored.groupby(types[scored.index])}


def macro_average(summaries: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """The unweighted mean over edit types, by method and metric; only where a method has a value in each of them.

    The edit types of a metric are those in which any method has a value. `pairs` is the number of pairs altogether.
    """
    every = pd.concat([part.assign(edit_type=kind) for kind, part in summaries.items()], ignore_index=True)
    cells = every.groupby(["method", "metric", "better"], sort=False)
    averaged = cells.agg(
        mean=("mean", "mean"),
        mean_shared=("mean_shared", lambda shared: shared.mean(skipna=False)),
        pairs=("pairs", "sum"),
        edit_types=("edit_type", "nunique"),
    ).reset_index()
    complete = averaged.metric.map(every.groupby("metric").edit_type.nunique())
    return averaged.loc[averaged.edit_types == complete].reset_index(drop=True)


def notes(summaries: dict[int, pd.DataFrame]) -> list[str]:
    """What the macro-average lacks to be FiVE-Bench's, in sentences."""
    missing = [f"{kind} ({name})" for kind, name in EDIT_TYPES.items() if kind not in summaries]
    said = [f"No values for edit type {', '.join(missing)}: this is no macro-average over all six"] if missing else []
    for metric, kinds in types_by_metric(summaries).items():
        if kinds != [*summaries]:
            said.append(f"{metric}: the macro-average is over edit types {', '.join(map(str, kinds))} alone")
    return said


def types_by_metric(summaries: dict[int, pd.DataFrame]) -> dict[str, list[int]]:
    """The edit types in which a metric has a value."""
    found: dict[str, list[int]] = {}
    for kind, summary in summaries.items():
        for metric in summary.metric.unique():
            found.setdefault(metric, []).append(kind)
    return found


def render(summaries: dict[int, pd.DataFrame], form: str, said: Sequence[str] = ()) -> str:
    """A table for each edit type, then the macro-average and what is to be said; `csv` is one tidy table."""
    macro = macro_average(summaries)
    if form == "csv":
        parts = [part.assign(edit_type=kind) for kind, part in summaries.items()]
        return pd.concat([*parts, macro.assign(edit_type="macro-average")], ignore_index=True)[
            ["edit_type", "method", "metric", "better", "mean", "low", "high", "pairs"]
        ].to_csv(index=False)
    titles = {f"Edit type {kind}, {EDIT_TYPES[kind]}": part for kind, part in summaries.items()}
    titles[f"Macro-average over {len(summaries)} edit types"] = macro
    texts = [text for title, part in titles.items() for text in (heading(title, form), render_one(part, form))]
    return "\n\n".join([*texts, *(heading(note, form) for note in said)]) + "\n"


def export(run: Path, output: Path, root: Path | None = None) -> tuple[int, int]:
    """The edited frames as <output>/<video>/<save_dir>/00000.png, ...; returns how many edits are there, and are not.

    root  FiVE-Bench's folder; None: the run's own

    Raises InputError where that is no run on FiVE-Bench, or the manifests say something else today than then.
    """
    require(is_run(run), f"{run} is no run directory: give one that +experiment=five made")
    edits = [edit for edit in edits_of(run) if edit_type_of(edit.id)]
    require(bool(edits), f"{run} holds no edit of FiVE-Bench's pairs: give a run with dataset=five")
    types = sorted({kind for edit in edits if (kind := edit_type_of(edit.id))})
    entries = {entry.id: entry for entry in manifest(root or Path(read_dataset(run).get("root", "")), types)}
    finished = [edit for edit in edits if edit.finished]
    goals: dict[Path, FinishedEdit] = {}
    for edit in finished:
        goal = output / agreed(edit, entries).home
        require(not goal.exists(), f"{goal} is there already: give another --output")
        require(goal not in goals, f"{edit.id} and {goals.get(goal)} would both be {goal}: mend save_dir in a manifest")
        goals[goal] = edit
    for goal, edit in goals.items():
        video = edit.video(EDITED, ".mkv")
        require(video is not None, f"{edit.path} holds no {EDITED}.mkv: remove the folder, and edit the pair again")
        assert video is not None
        write_frames(goal, read_video(video, None).frames[:LAST_FRAME])
    return len(finished), len(edits) - len(finished)


def agreed(edit: FinishedEdit, entries: dict[str, Entry]) -> Entry:
    """The manifest's entry of an edit. Raises InputError where it is not there, or has other prompts."""
    entry = entries.get(edit.id)
    require(
        entry is not None and entry.prompts == edit.prompts,
        f"{edit.path} was made by another version of FiVE-Bench's manifests: name that one's folder with --root",
    )
    assert entry is not None
    return entry


def table(options: argparse.Namespace) -> None:
    """Prints or writes the tables."""
    scores = collect(scored_runs(options.runs))
    summaries = by_edit_type(scores)
    said = [*notes(summaries), *failures(scores)]
    deliver(render(summaries, options.format, said), options.format, said, options.output)


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tables = commands.add_parser("table", help="means by edit type, and the macro-average")
    tables.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    tables.add_argument("--format", choices=FORMATS, default="md")
    tables.add_argument("--output", type=Path, help="write here instead of printing")
    exporting = commands.add_parser("export", help="edited frames in FiVE-Bench's folders")
    exporting.add_argument("run", type=Path, metavar="RUN")
    exporting.add_argument("--output", type=Path, required=True)
    exporting.add_argument("--root", type=Path, help="FiVE-Bench's folder, where it is not the run's own any more")
    options = parser.parse_args()
    if options.command == "table":
        table(options)
        return
    written, unfinished = export(options.run, options.output, options.root)
    print(f"{written} edits in {options.output}" + (f"; {unfinished} are not finished" if unfinished else ""))


if __name__ == "__main__":
    main()
