"""sweep.json: which runs a multirun has made, by their overrides, and why one failed.

Jobs anywhere on a cluster add themselves to it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from assd.errors import InputError
from assd.files import write_json
from assd.runs.lock import briefly_alone

SWEEP_JSON = "sweep.json"


def begin_sweep(folder: Path, overrides: Sequence[str]) -> None:
    """Starts the list of a sweep's runs anew; `overrides` are the multirun's own."""
    folder.mkdir(parents=True, exist_ok=True)
    with briefly_alone(folder):
        write_json(folder / SWEEP_JSON, {"overrides": list(overrides), "runs": {}, "failed": {}})


def add_run(folder: Path, run: str, overrides: Sequence[str]) -> None:
    """Adds a run, a folder below `folder`, with the overrides that set it apart."""
    with briefly_alone(folder):
        sweep = read_sweep(folder)
        sweep["runs"][run] = list(overrides)
        sweep["failed"].pop(run, None)
        write_json(folder / SWEEP_JSON, sweep)


def fail_run(folder: Path, run: str, reason: str) -> None:
    """Keeps why a run failed, or some of its pairs did, until it begins again."""
    with briefly_alone(folder):
        sweep = read_sweep(folder)
        sweep["failed"][run] = reason
        write_json(folder / SWEEP_JSON, sweep)


def sweep_runs(folder: Path) -> list[Path]:
    """The directories of a sweep's runs that have begun, by name; none where `folder` holds no sweep."""
    return sorted(folder / run for run in read_sweep(folder)["runs"])


def runs_in(paths: Sequence[Path]) -> list[Path]:
    """Run directories as given, of a sweep's folder its runs.

    Files are passed over: `outputs/*` also names what a sweep leaves beside its runs, such as multirun.yaml.
    """
    folders = [path for path in paths if not path.is_file()] or paths
    return [run for path in folders for run in (sweep_runs(path) or [path])]


def read_sweep(folder: Path) -> dict:
    """sweep.json, or a sweep without runs. Raises InputError for a damaged file, which it names."""
    file = folder / SWEEP_JSON
    if not file.is_file():
        return {"overrides": [], "runs": {}, "failed": {}}
    try:
        sweep = {"failed": {}} | json.loads(file.read_text(encoding="utf-8"))  # earlier versions kept no reasons
        names = [Path(run).name == run for run in sweep["runs"]]
        if not all(names):
            raise ValueError("a run's name leads out of the folder")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}): remove it, and start the sweep again") from error
    return sweep
