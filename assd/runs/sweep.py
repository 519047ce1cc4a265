"""sweep.json: which runs a multirun has made, by their overrides, and why one failed.

Jobs anywhere on a cluster add themselves to it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from assd.errors import InputError
from assd.files import write_json
from assd.runs.lock import briefly_alone

SWEEP_JSON = "sweep.json"
OF_SHARD = " (dataset.shard="  # between a run's name and its shard's number


def begin_sweep(folder: Path, overrides: Sequence[str]) -> None:
    """Starts the list of a sweep's runs anew; `overrides` are the multirun's own."""
    folder.mkdir(parents=True, exist_ok=True)
    with briefly_alone(folder):
        write_json(folder / SWEEP_JSON, {"overrides": list(overrides), "runs": {}, "failed": {}})


def add_run(folder: Path, run: str, overrides: Sequence[str], shard: str | None = None) -> None:
    """Adds a run, a folder below `folder`, with the overrides that set it apart, or a shard's job of it."""
    with briefly_alone(folder):
        sweep = read_sweep(folder)
        sweep["runs"][run] = list(overrides)
        sweep["failed"].pop(job_name(run, shard), None)
        write_json(folder / SWEEP_JSON, sweep)


def fail_run(folder: Path, run: str, reason: str, shard: str | None = None) -> None:
    """Keeps why a run failed, or some of its pairs did, until it begins again; of a run in shards, why each did."""
    with briefly_alone(folder):
        sweep = read_sweep(folder)
        sweep["failed"][job_name(run, shard)] = reason
        write_json(folder / SWEEP_JSON, sweep)


def job_name(run: str, shard: str | None) -> str:
    """Under which a reason is kept: several jobs may share a run. No run is called so.

    >>> job_name("default", "1/4")
    'default (dataset.shard=1/4)'
    """
    return f"{run}{OF_SHARD}{shard})" if shard else run


def reason_of(sweep: Mapping, run: str) -> str | None:
    """Why a run of a sweep failed, or shards of it did; None where nothing is known."""
    reasons = [reason for job, reason in sweep["failed"].items() if job.partition(OF_SHARD)[0] == run]
    return "; ".join(dict.fromkeys(reasons)) or None


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
