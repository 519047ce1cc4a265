"""Kills a run at random moments and compares what is left in the end: `python -m tests.soak [--kills 100]`.

Each attempt is a process of its own, ended with SIGKILL after a random time: while it starts, edits, writes or scores.
The same command is started again until it ends, and the run directory must then hold the bits of one that nobody
disturbed. Processes are forked from one that has imported everything, so that a kill costs seconds.
"""

import argparse
import collections
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from assd.run import main as edit

OVERRIDES = (
    "dataset.limit=3", "steps.distillation=20", "method.checkpoint_every=1", "device=cpu", "tracking.mode=disabled",
    "metric=[clip_text,contamination,psnr]",
)  # fmt: skip
TIMED = ("seconds", "peak_memory_gib", "date", "command", "commit")  # what may differ between any two runs
PICTURES = (".png", ".html")  # made from the rest


def attempt(output: Path) -> int:
    """Starts the run in a process of its own; returns its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    log = os.open(output.parent / f"{output.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["assd", *OVERRIDES, f"output={output}"]
    code = 1
    try:
        edit()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        print(end)
    finally:
        sys.stdout.flush()
        os._exit(code)


def moment(output: Path) -> str:
    """What the run was doing, read off what it left."""
    if any(output.rglob(".*.partial*")):
        return "writing a file"
    if any(output.rglob("checkpoint.safetensors")):
        return "editing"
    finished = [file.parent for file in output.rglob("edit.json")]
    if any(not (folder / "scores.csv").exists() for folder in finished):
        return "scoring"
    return "between pairs" if finished else "starting"


def killed_run(output: Path, kills: int, seed: int) -> collections.Counter:
    """A run killed so many times, then left alone until it ends; how often it was doing what when it died.

    The time of an attempt grows until attempts get somewhere, so that a slow machine is no endless loop.
    """
    rng, died, longest = random.Random(seed), collections.Counter(), 4.0
    while died.total() < kills:
        child, steps = attempt(output), progress(output)
        time.sleep(rng.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):  # it had ended: begin another run, so that every kill hits one that lives
            require(os.WEXITSTATUS(status) == 0, output)
            output = fresh(output)
            continue
        died[moment(output)] += 1
        longest *= 1.05 if progress(output) == steps else 0.99
    _, status = os.waitpid(attempt(output), 0)
    require(os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, output)
    return died


def progress(output: Path) -> int:
    """Steps and files that there are."""
    return sum(file.stat().st_size for file in output.rglob("steps.jsonl")) + len([*output.rglob("edit.json")])


def fresh(output: Path) -> Path:
    """The folder of the next run; the last one is kept beside it to be compared as well."""
    number = len([*output.parent.glob(f"{output.name}-*")])
    output.rename(output.with_name(f"{output.name}-{number}"))
    return output


def require(holds: bool, output: Path) -> None:
    """Ends the program with the run's log unless it ended well."""
    if not holds:
        sys.exit(f"the run failed:\n{(output.parent / f'{output.name}.log').read_text()[-4000:]}")


def contents(run: Path) -> dict[str, object]:
    """Every file of a run by its path, without what tells the time."""
    files = sorted(file for file in run.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(f.relative_to(run)): content(f) for f in files if f.suffix not in (*PICTURES, ".log")}


def content(file: Path) -> object:
    """Its bits; of records, all but the times."""
    if file.suffix == ".jsonl":
        return [untimed(json.loads(line)) for line in file.read_text().splitlines()]
    if file.name in ("edit.json", "environment.json"):
        return untimed(json.loads(file.read_text()))
    if file.name == "config.yaml":
        return [line for line in file.read_text().splitlines() if not line.startswith(("output:", "  group:"))]
    return file.read_bytes()


def untimed(record: dict) -> dict:
    """A record without the times."""
    return {key: value for key, value in record.items() if key not in TIMED}


def soak(folder: Path, kills: int, seed: int = 0) -> collections.Counter:
    """Kills runs in a folder `kills` times, and compares all of them with an unbroken one.

    Raises AssertionError, which names the files, where they differ.
    """
    unbroken, killed = folder / "unbroken", folder / "killed"
    _, status = os.waitpid(attempt(unbroken), 0)
    require(os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, unbroken)
    died = killed_run(killed, kills, seed)
    (expected,) = unbroken.iterdir()
    for run in folder.glob("killed*/"):
        (found,) = run.iterdir()
        differ = compared(contents(expected), contents(found))
        assert not differ, f"{found} differs from the unbroken run in {', '.join(differ)}"
    return died


def compared(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    """The files that one of two runs lacks or holds otherwise."""
    return [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        died = soak(Path(folder), options.kills, options.seed)
    for what, count in died.most_common():
        print(f"killed while {what}: {count}")
    print(f"{died.total()} kills in {time.monotonic() - started:.0f} s, and the bits of the unbroken run")


if __name__ == "__main__":
    main()
