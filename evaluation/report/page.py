"""The page's content: what a reader sees of one run, or of several side by side.

Videos, pictures, style and script are inside the page: it opens from a file, without network.
"""

import base64
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from assd.config import in_full, quoted
from assd.errors import InputError, require
from assd.runs.reader import (
    CONFIG_YAML,
    ENVIRONMENT_JSON,
    FinishedEdit,
    edits_of,
    is_run,
    kept_options,
    read_environment,
    run_overrides,
)
from evaluation import intervals
from evaluation.comparison import by_row, collect, failures, ordered, summarize
from evaluation.scores import EDITED, SCORES_CSV, values
from evaluation.tables import ARROWS, pair_count, places

MIME = {".mp4": "video/mp4", ".png": "image/png"}
SMOOTHING = 9  # steps over which a curve's bold line is the mean
PLOT = (300, 90)  # a curve's width and height, in the page's units
PLACES = ("step", "t", "seconds")  # where and when something was measured


@dataclass(frozen=True)
class Clip:
    """One video of a pair."""

    label: str
    uri: str


@dataclass(frozen=True)
class Curve:
    """A curve of one run: thin as it was, bold as its running mean, as SVG points."""

    label: str
    thin: str
    bold: str
    low: str
    high: str
    last_step: int


@dataclass
class Pair:
    """What the page shows of one text-video pair."""

    id: str
    source_prompt: str
    target_prompt: str
    clips: list[Clip] = field(default_factory=list)
    strips: list[Clip] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    scores: "Grid | None" = None


@dataclass(frozen=True)
class Cell:
    """A number as text, what it is sorted by, and whether it is the column's best (1) or second best (2)."""

    text: str
    value: float | None = None
    rank: int = 0


@dataclass(frozen=True)
class Grid:
    """A table that the reader can sort; the first column names the rows."""

    head: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Run:
    """One run directory, and how to repeat it."""

    name: str
    command: str
    environment: str
    config: str


def data_uri(file: Path) -> str:
    """The file inside the page."""
    return f"data:{MIME[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"


def read_run(path: Path) -> Run:
    """Configuration and environment. Raises InputError where `path` is no run directory."""
    if not is_run(path):
        raise InputError(
            f"{path} is no run directory: it has no {CONFIG_YAML} of its own. Run directories lie in outputs/"
        )
    environment = read_environment(path)
    command = repeating(path, environment)
    shown = {key: value for key, value in environment.items() if key != "command"}
    config = (path / CONFIG_YAML).read_text(encoding="utf-8")
    return Run(path.resolve().name, command, json.dumps(shown, indent=2), config)


def repeating(path: Path, environment: dict[str, Any]) -> str:
    """The command that repeats a whole run, whatever launched it, and in whatever shards.

    Of a run of an earlier version, which kept no overrides, it is the one that started it. Raises InputError where
    `environment`, of environment.json, is damaged.
    """
    words = environment.get("command", [""])
    require(
        isinstance(words, list) and all(isinstance(word, str) for word in words),
        f"{path / ENVIRONMENT_JSON}: command must be a list of texts; restore it, or remove the run",
    )
    if "overrides" in environment:
        kept = [f"{key}={quoted(value)}" for key, value in kept_options(path).items()]
        words = ["", *in_full(run_overrides(path)), *kept]
    return shlex.join(["python", "-m", "assd.run", *words[1:]])


def read_pairs(paths: list[Path]) -> list[Pair]:
    """All pairs of all runs; of runs that differ in their seed alone, the first is shown."""
    pairs: dict[str, Pair] = {}
    for edit in (edit for path in paths for edit in edits_of(path) if not edit.damage):
        pairs.setdefault(edit.id, Pair(edit.id, *edit.prompts))
    shown = by_row(paths)
    for pair in pairs.values():
        every = {name: FinishedEdit(path / "edits" / pair.id) for name, path in shown.items()}
        edits = {name: edit for name, edit in every.items() if not edit.damage}
        pair.clips = clips(edits)
        for name, edit in edits.items():
            if edit.filmstrip:
                pair.strips.append(Clip(name, data_uri(edit.filmstrip)))
            pair.curves += curves(edit, f"{name}: " if len(shown) > 1 else "")
            if edit.reason:
                pair.problems.append(f"{name}: {edit.reason}")
    return list(pairs.values())


def damaged(paths: list[Path]) -> list[str]:
    """What is said of the pairs that can't be shown."""
    return [edit.damage for path in paths for edit in edits_of(path) if edit.damage]


def clips(edits: dict[str, FinishedEdit]) -> list[Clip]:
    """Source and true edit once, between them each run's edit, then each run's difference."""
    several = len(edits) > 1
    wanted = [("source", first_video("source", edits))]
    wanted += [(name if several else EDITED, edit.video(EDITED)) for name, edit in edits.items()]
    wanted += [("true edit", first_video("truth", edits))]
    wanted += [(f"difference, {name}" if several else "difference", e.video("difference")) for name, e in edits.items()]
    return [Clip(label, data_uri(file)) for label, file in wanted if file]


def first_video(name: str, edits: dict[str, FinishedEdit]) -> Path | None:
    """The first video of this name; None where no edit has one."""
    return next((file for edit in edits.values() if (file := edit.video(name))), None)


def curves(edit: FinishedEdit, prefix: str) -> list[Curve]:
    """The curves of what a method measured: every number of its steps but those that say where it was.

    Each over the steps that measured it: a method of several phases measures other numbers in each.
    """
    steps = pd.DataFrame(edit.curves)
    measured = [key for key in steps if key not in PLACES and pd.api.types.is_numeric_dtype(steps[key])]
    parts = {key: steps[["step", key]].dropna() for key in measured}
    return [curve(f"{prefix}{label_of(key)}", part.step, part[key]) for key, part in parts.items()]


def label_of(key: str) -> str:
    """`video.mask_coverage` as `mask coverage`."""
    return key.rpartition(".")[2].replace("_", " ")


def curve(label: str, steps: pd.Series, numbers: pd.Series) -> Curve:
    """Scaled into the plot, the vertical axis from zero."""
    width, height = PLOT
    top = max(numbers.max(), 1e-12)
    x = steps / max(steps.max(), 1) * width

    def points(y: pd.Series) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, height - y / top * height))

    mean = numbers.rolling(SMOOTHING, center=True, min_periods=1).mean()
    return Curve(label, points(numbers), points(mean), "0", f"{top:.3g}", int(steps.max()))


def methods_grid(scores: pd.DataFrame) -> Grid:
    """One row per method, one column per metric: the table of the sweep."""
    summary = summarize(scores)
    if summary.empty:
        return Grid(["method"], [])
    columns = list(dict.fromkeys(zip(summary.metric, summary.better)))
    cells = {(row.method, row.metric): row for row in summary.itertuples()}
    methods = ordered(summary.method)
    ranks = {metric: places(summary[summary.metric == metric]) for metric, _ in columns}
    rows = []
    for method in methods:
        line = []
        for metric, _ in columns:
            found: Any = cells.get((method, metric))
            if found is None or np.isnan(found.mean):
                line.append(Cell(intervals.UNKNOWN))
                continue
            text = intervals.with_interval(intervals.Mean(found.mean, found.low, found.high, found.pairs))
            line.append(Cell(text, found.mean, ranks[metric].get(method, 0)))
        counts = summary[summary.method == method].pairs
        rows.append((method, [*line, Cell(pair_count(counts), float(counts.max()))]))
    return Grid(["method", *(f"{metric} {ARROWS[better]}" for metric, better in columns), "pairs"], rows)


def pair_grid(scores: pd.DataFrame) -> Grid | None:
    """The scores of one pair: one row per metric, one column per method."""
    scored = values(scores)
    if scored.empty:
        return None
    table = scored.pivot_table(index=["metric", "better"], columns="method", values="value", sort=False)
    table = table[[method for method in ordered(scored.method) if method in table]]
    rows = [
        (f"{metric} {ARROWS[better]}", [Cell(intervals.number(v), None if np.isnan(v) else v) for v in numbers])
        for (metric, better), numbers in zip(table.index, table.to_numpy())
    ]
    return Grid(["metric", *map(str, table.columns)], rows)


def page(title: str, paths: list[Path]) -> str:
    """The page's text. Everything that came from outside is escaped by the template."""
    runs = [read_run(path) for path in paths]
    pairs = read_pairs(paths)
    scored = [path for path in paths if (path / SCORES_CSV).is_file()]
    scores = collect(scored) if scored else None
    if scores is not None:
        for pair in pairs:
            pair.scores = pair_grid(scores[scores.pair == pair.id])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["inline"] = lambda name: Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(
        title=title,
        runs=runs,
        pairs=pairs,
        grid=methods_grid(scores) if scores is not None else None,
        failures=[*(failures(scores) if scores is not None else []), *damaged(paths)],
        plot=PLOT,
    )
