"""One writer at a time: a lock in the run directory, which the system releases when its holder dies."""

import contextlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from assd.errors import InputError
from assd.files import write_json

WAIT_SECONDS = 60


class BusyError(InputError):
    """Another program writes there already. The message says who."""


@contextlib.contextmanager
def one_writer(folder: Path, part: str = "") -> Iterator[None]:
    """Within it no other program may write into the folder; of a run that several jobs share, into the same part of it.

    Raises BusyError when another one does already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, writer = FileLock(folder / f".lock{part}"), folder / f".writer{part}.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"{folder} is being written by {holder(writer)}: wait until it ends, or give this run another folder "
            f"with output=..."
        ) from None
    try:
        job = os.environ.get("SLURM_JOB_ID")
        write_json(writer, {"host": socket.gethostname(), "process": os.getpid(), "command": sys.argv, "job": job})
        yield
    finally:
        writer.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def briefly_alone(folder: Path) -> Iterator[None]:
    """Within it no other job changes the files that the jobs of one run share; who comes second waits."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".shared.lock")
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        raise InputError(
            f"{lock.lock_file} has been held by another job for {WAIT_SECONDS} s: where none writes into {folder} any "
            f"more, the same command goes on; what was edited is kept"
        ) from None
    try:
        yield
    finally:
        lock.release()


def holder(writer: Path) -> str:
    """Who holds the lock, for a person."""
    try:
        said = json.loads(writer.read_text(encoding="utf-8"))
        job = f" (Slurm job {said['job']})" if said["job"] else ""
        return f"process {said['process']} on {said['host']}{job}, `{shlex.join(said['command'])}`"
    except (OSError, ValueError, KeyError, TypeError):
        return "another program"
