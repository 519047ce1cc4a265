"""Which edits a study compares: read from run directories, and nothing else of them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assd.errors import require
from assd.runs.reader import edits_of
from assd.runs.sweep import sweep_runs
from evaluation.comparison import row_names


@dataclass(frozen=True, kw_only=True)
class StudyEdit:
    """One method's finished edit of one text-video pair."""

    method: str
    pair: str
    source_prompt: str
    target_prompt: str
    source: Path
    edited: Path


def finished_edits(run: Path, method: str) -> Iterator[StudyEdit]:
    """The finished edits of a run; pairs that failed or are under way are passed over."""
    for edit in edits_of(run):
        source, edited = edit.video("source"), edit.video("edited")
        if edit.finished and source and edited:
            yield StudyEdit(
                method=method,
                pair=edit.id,
                source_prompt=edit.prompts.source,
                target_prompt=edit.prompts.target,
                source=source,
                edited=edited,
            )


def named_runs(arguments: Iterable[str]) -> dict[str, Path]:
    """Method names and their run directories.

    An argument is a run directory, a sweep's folder (all its runs), or NAME=RUN; without a name, a run's folder names
    its method. Files, which `outputs/*` names too, are passed over.

    Raises InputError where a folder holds no run, two runs have the same name, or differ in their seed alone: of each
    method a study shows one edit of a video.
    """
    runs: dict[str, Path] = {}
    unnamed: list[Path] = []
    given = [*arguments]
    for argument in [a for a in given if not Path(a).is_file()] or given:
        name, path = split_name(argument)
        for run in runs_below(path):
            method = name or run.resolve().name
            require(
                method not in runs,
                f"two runs are called {method} ({runs.get(method)} and {run}): name them, NAME=RUN",
            )
            runs[method] = run
            unnamed += [] if name else [run]
    seeds = [method for method, count in Counter(row_names(unnamed)).items() if count > 1]
    require(not seeds, f"{', '.join(seeds)}: runs that differ in their seed alone are one method; name one, NAME=RUN")
    return runs


def split_name(argument: str) -> tuple[str, Path]:
    """`NAME=RUN` as (NAME, RUN). A folder that exists as written, such as `method=tokenflow`, has no name before it."""
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        return "", Path(argument)
    return name, Path(path)


def runs_below(path: Path) -> list[Path]:
    """The run directory itself, the runs of a sweep's folder, or else its subfolders that hold `edits/`."""
    if (path / "edits").is_dir():
        return [path]
    runs = sweep_runs(path) or sorted(folder.parent for folder in path.glob("*/edits"))
    require(bool(runs), f"{path} holds no run: neither it nor a folder in it has edits/. Runs lie in outputs/")
    return runs


def comparable(runs: dict[str, Path], complete: bool) -> dict[str, dict[str, StudyEdit]]:
    """For each pair, its edit by each method: pairs that at least two methods finished, or, if `complete`, all of them.

    Raises InputError where fewer than two methods come, or no pair is left.
    """
    require(len(runs) > 1, f"a study compares methods, and {', '.join(runs) or 'none'} came: give two runs or more")
    pairs: dict[str, dict[str, StudyEdit]] = {}
    for method, run in runs.items():
        for edit in finished_edits(run, method):
            pairs.setdefault(edit.pair, {})[method] = edit
    wanted = len(runs) if complete else 2
    kept = {pair: edits for pair, edits in sorted(pairs.items()) if len(edits) >= wanted}
    require(bool(kept), f"no pair was finished by {wanted} of the {len(runs)} methods: {', '.join(runs)}")
    return kept
