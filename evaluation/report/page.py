"""One self-contained page about a run or a sweep: `python -m evaluation.report RUNS... [--output report.html]`.

Videos, pictures, style and script are inside the page: it opens from a file, without network.
"""

import argparse
import base64
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from markupsafe import Markup
from omegaconf import DictConfig

from assd.errors import InputError, one_sentence
from assd.rundir import CONFIG_YAML, whole_lines, write_text
from evaluation import statistics
from evaluation.methods import by_method, collect, failures, ordered, summarize
from evaluation.scores import EDITED, SCORES_CSV, values
from evaluation.tables import ARROWS, pair_count, places

REPORT_HTML = "report.html"
MIME = {".mp4": "video/mp4", ".png": "image/png"}
SMOOTHING = 9  # steps over which a curve's bold line is the mean
PLOT = (300, 90)  # a curve's width and height, in the page's units
CURVES = {"gradient_norm": "gradient norm", "video.mask_coverage": "mask coverage"}


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
    if not (path / CONFIG_YAML).is_file():
        raise InputError(f"{path} is no run directory: it has no {CONFIG_YAML}. Run directories lie in outputs/")
    environment = json.loads((path / "environment.json").read_text(encoding="utf-8"))
    command = f"python -m assd.run {shlex.join(environment.pop('command')[1:])}"
    config = (path / CONFIG_YAML).read_text(encoding="utf-8")
    return Run(path.resolve().name, command, json.dumps(environment, indent=2), config)


def read_pairs(paths: list[Path]) -> list[Pair]:
    """All pairs of all runs; of runs that differ in their seed alone, the first is shown."""
    pairs: dict[str, Pair] = {}
    for path in paths:
        for file in sorted(path.glob("edits/*/edit.json")):
            record = json.loads(file.read_text(encoding="utf-8"))
            pairs.setdefault(record["id"], Pair(record["id"], record["source_prompt"], record["target_prompt"]))
    shown = by_method(paths)
    for pair in pairs.values():
        folders = {name: path / "edits" / pair.id for name, path in shown.items()}
        pair.clips = clips(folders)
        for name, folder in folders.items():
            if (folder / "filmstrip.png").is_file():
                pair.strips.append(Clip(name, data_uri(folder / "filmstrip.png")))
            if (folder / "steps.jsonl").is_file():
                pair.curves += curves(folder / "steps.jsonl", f"{name}: " if len(shown) > 1 else "")
            record = folder / "edit.json"
            if record.is_file() and (reason := json.loads(record.read_text("utf-8")).get("reason")):
                pair.problems.append(f"{name}: {reason}")
    return list(pairs.values())


def clips(folders: dict[str, Path]) -> list[Clip]:
    """Source and true edit once, between them each run's edit, then each run's difference."""
    several = len(folders) > 1
    wanted = [("source", "source", first_with("source.mp4", folders))]
    wanted += [(EDITED, name if several else "edited", folder) for name, folder in folders.items()]
    wanted += [("truth", "true edit", first_with("truth.mp4", folders))]
    wanted += [("difference", f"difference, {name}" if several else "difference", f) for name, f in folders.items()]
    files = [(label, folder / f"{kind}.mp4") for kind, label, folder in wanted]
    return [Clip(label, data_uri(file)) for label, file in files if file.is_file()]


def first_with(file: str, folders: dict[str, Path]) -> Path:
    """The first folder that holds such a file, or else the first."""
    found = [folder for folder in folders.values() if (folder / file).is_file()]
    return (found or [*folders.values()])[0]


def curves(file: Path, prefix: str) -> list[Curve]:
    """The curves that a run of score distillation leaves."""
    steps = pd.DataFrame(whole_lines(file))
    if steps.empty:
        return []
    return [curve(f"{prefix}{label}", steps.step, steps[key]) for key, label in CURVES.items() if key in steps]


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
            if found is None:
                line.append(Cell(statistics.UNKNOWN))
                continue
            text = statistics.with_interval(statistics.Mean(found.mean, found.low, found.high, found.pairs))
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
        (f"{metric} {ARROWS[better]}", [Cell(statistics.number(v), None if np.isnan(v) else v) for v in numbers])
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
        loader=jinja2.PackageLoader("evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["inline"] = lambda name: Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2").render(
        title=title,
        runs=runs,
        pairs=pairs,
        grid=methods_grid(scores) if scores is not None else None,
        failures=failures(scores) if scores is not None else [],
        plot=PLOT,
    )


def write_report(paths: Iterable[Path], output: Path) -> Path:
    """Writes the page about run directories; returns where it is."""
    paths = list(paths)
    write_text(output, page(paths[0].resolve().name if len(paths) == 1 else output.parent.resolve().name, paths))
    return output


class SweepReport(Callback):
    """Hydra's callback: after a multirun, one page about all its runs, in the folder that holds them."""

    def __init__(self) -> None:
        self.runs: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Writes the page after each job: where one failed, `on_multirun_end` never comes."""
        run = Path(config.hydra.runtime.output_dir)
        if config.hydra.mode == RunMode.MULTIRUN and (run / CONFIG_YAML).is_file():
            self.runs.append(run)
            write_report(self.runs, Path(config.hydra.sweep.dir) / REPORT_HTML)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Runs that were edited in other processes are found by their configuration."""
        folder = Path(config.hydra.sweep.dir)
        runs = self.runs or sorted(file.parent for file in folder.glob(f"*/{CONFIG_YAML}"))
        if runs:
            print(f"The sweep's report: {write_report(runs, folder / REPORT_HTML)}")


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path(REPORT_HTML))
    options = parser.parse_args()
    print(write_report(options.runs, options.output))


if __name__ == "__main__":
    main()
