"""The paper's main result: `python -m experiments.table1 [override...] [--study ANSWERS...]`, its table 1 and figure 3.

Runs (or reuses) the paper's six methods and Video-DDS on the same pairs, canvas and metrics. Writes table1.md and
table1.tex, table1.csv (the same, tidy, with every metric's name in full), figure3.png (a block a pair: source, every
method, true edit where it is known) and report.html, the sweep's report. Beside the paper's metrics stand what only a
world with true edits can measure, and what each method costs on this machine. A paragraph below the table says what is
certain against the paper's method and what is not, made from the numbers. `--study` fills the right half, from the
answers to a study by `python -m evaluation.study`.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from assd.config import by_key, composed
from assd.data.pairs import Footage, TextVideoPair
from assd.data.video import to_bytes
from assd.errors import one_sentence, require
from assd.runs import pictures
from assd.runs.reader import edits_of
from assd.runs.sweep import read_sweep, reason_of
from evaluation.comparison import UNEDITED, collect, failures, summarize
from evaluation.report import REPORT_HTML
from evaluation.scores import COLUMNS, EDITED, SCORES_CSV, failure, row
from evaluation.tables import render, render_differences
from experiments.common import arguments, edits, first_pairs, is_of_before, sweep_parts, write_table
from experiments.findings import metric_verdicts, paragraph
from experiments.study import RightHalf, right_half

METHODS = {  # in the paper's order, under its names
    "tune_a_video": "Tune-A-Video",
    "fatezero": "FateZero",
    "control_video": "ControlVideo",
    "flatten": "FLATTEN",
    "tokenflow": "TokenFlow",
    "score_distillation": "ASSD",
    "video_dds": "Video-DDS",
}
OURS = METHODS["score_distillation"]
PARTS = tuple(["+ablation=video_dds" if name == "video_dds" else f"method={name}"] for name in METHODS)
METRICS = {  # of the left half, where a run has them, by what heads their columns
    "clip_text": "CLIP text",
    "clip_consistency": "CLIP consistency",
    "clip_direction": "CLIP direction",
    "edit_success": "edit made",
    "contamination": "contamination",
    "truth_psnr": "truth PSNR (dB)",
}
TIME, MEMORY = "time (s)", "peak memory (GiB)"


def method_of(overrides: Iterable[str]) -> str:
    """Which of METHODS a run's overrides choose; another one under its own name."""
    chosen = by_key(overrides)
    return str(chosen.get("ablation") or chosen.get("method") or "score_distillation")


def measured(folder: Path, pairs: Sequence[str]) -> pd.DataFrame:
    """Scores and costs of a sweep's runs on these pairs, in the paper's order; of a run that failed, its reason."""
    sweep = read_sweep(folder)
    parts = []
    for run, overrides in sweep["runs"].items():
        label, reason = METHODS.get(method_of(overrides), method_of(overrides)), reason_of(sweep, run)
        parts.append(scores_of(folder / run, label, reason, pairs))
    scores = pd.concat(parts, ignore_index=True)
    return in_order(scores[scores.pair.isin(pairs)])


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by their method: what does not edit, then as in the paper."""
    order = {label: place for place, label in enumerate([*UNEDITED.values(), *METHODS.values()])}
    return table.sort_values("method", key=lambda methods: methods.map(order), kind="stable", ignore_index=True)


def scores_of(run: Path, label: str, reason: str | None, pairs: Sequence[str]) -> pd.DataFrame:
    """A run's scores with what its edits cost.

    Of a run that failed as a whole, a row a pair with the reason; what its folder may hold is of an earlier command.
    """
    if not (run / SCORES_CSV).is_file() or is_of_before(run, reason):
        nothing = [failure(pair, reason or "it was interrupted: the same command goes on") for pair in pairs]
        return pd.concat(nothing).assign(method=label)
    return pd.concat([collect([run], [label]), costs(run).assign(method=label)])


def costs(run: Path) -> pd.DataFrame:
    """Time and peak memory of a run's finished edits, as rows of scores."""
    rows = []
    for edit in edits_of(run):
        if edit.cost:
            rows.append(row(edit.id, EDITED, TIME, "lower", edit.cost.seconds, ""))
        if edit.cost and edit.cost.peak_memory_gib is not None:
            rows.append(row(edit.id, EDITED, MEMORY, "lower", edit.cost.peak_memory_gib, ""))
    return pd.DataFrame(rows, columns=COLUMNS)


def column_heads(cfg: DictConfig) -> dict[str, str]:
    """Metrics by their names in full, with what heads their columns: METRICS, or all where a run has none of them."""
    chosen = [name for name in METRICS if name in cfg.metric] or list(cfg.metric)
    names = {name: str(instantiate(cfg.metric[name]).name) for name in chosen}
    return {full: METRICS.get(name, full) for name, full in names.items()} | {TIME: TIME, MEMORY: MEMORY}


def machine(runs: Iterable[Path]) -> str:
    """Where time and memory were measured."""
    costs = [edit.cost for run in runs for edit in edits_of(run)]
    names = sorted({cost.device or "an unknown one" for cost in costs if cost})
    where = f"on {names[0]}" if len(names) == 1 else f"NOT on one device, but on {', '.join(names) or 'none'}"
    return (
        f"Time and peak memory are of one video, the networks being loaded, {where}: on a GPU what torch allocated, on "
        f"a CPU the process's resident set"
    )


def figure3(runs: Mapping[str, Path], pair: TextVideoPair, footage: Footage) -> Image.Image:
    """A block of the paper's figure 3, with the true edit; of several seeds, the first."""
    rows = {"source": to_bytes(footage.frames), **edits(dict(runs), pair)}
    if footage.truth is not None:
        rows["true edit"] = to_bytes(footage.truth)
    return pictures.sheet(pair.prompts, rows, height=56, most=6)


def first_runs(folder: Path) -> dict[str, Path]:
    """The first run of each method, in the paper's order."""
    runs = {}
    for run, overrides in sorted(read_sweep(folder)["runs"].items()):
        runs.setdefault(method_of(overrides), folder / run)
    return {label: runs[name] for name, label in METHODS.items() if name in runs}


def given() -> argparse.Namespace:
    """The command line."""
    study = dict(type=Path, nargs="+", metavar="ANSWERS", help="files or folders of a study's answers; give them last")
    return arguments(__doc__, "table1", pairs=6, more={"--study": study})


def write(output: Path, summary: pd.DataFrame, heads: Mapping[str, str], right: RightHalf, notes: Sequence[str]) -> str:
    """Writes table1.md, table1.tex and table1.csv; returns the Markdown, in which the paragraph stands."""
    pd.concat([summary, right.rows]).to_csv(output / "table1.csv", index=False)
    shown = summary.replace({"metric": dict(heads)})
    said = paragraph(metric_verdicts(shown), right.verdicts, OURS)
    meant = "; ".join(f"{head} is {full}" for full, head in heads.items() if head != full)
    notes = [*notes, *([f"In full: {meant}"] if meant else []), *right.notes]

    def parts(form: str) -> list[str]:
        table = render(pd.concat([shown, right.rows], ignore_index=True), form, notes=notes)
        compared = render_differences(shown, form, f"Paired difference to {OURS}")
        return [table, *([said] if form == "md" else []), compared]

    return write_table(output, "table1", parts)


@one_sentence()
def main() -> None:
    """The command line."""
    options = given()
    right, cfg = right_half(options.study, METHODS, OURS), composed(options.overrides)
    sweep_parts(options.output, options.pairs, PARTS, options.overrides)
    pairs = list(first_pairs(cfg, options.pairs))
    runs, heads = first_runs(options.output), column_heads(cfg)
    scores = measured(options.output, [pair.id for pair, _ in pairs])
    scores = scores[scores.metric.isin([*heads, ""])]
    summary, notes = summarize(scores, OURS), failures(scores)
    require(not summary.empty, f"no method edited any of these pairs. {'. '.join(notes)}")
    summary = in_order(summary)
    print(write(options.output, summary, heads, right, [*notes, machine(runs.values())]))
    blocks = [figure3(runs, *pair) for pair in pairs]
    pictures.save(pictures.stack(blocks, columns=3), options.output / "figure3.png")
    print(f"Look at {options.output / 'figure3.png'} and {REPORT_HTML}; the numbers are in table1.csv")


if __name__ == "__main__":
    main()
