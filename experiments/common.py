"""What every experiment shares: its folder, its command, and runs of the editor."""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from jaxtyping import UInt8
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from assd.config import by_key, composed, quoted
from assd.data.pairs import Canvas, Footage, TextVideoPair
from assd.data.video import read_video
from assd.errors import InputError, require
from assd.files import write_text
from assd.runs import pictures
from assd.runs.reader import FinishedEdit, run_overrides
from assd.runs.sweep import add_run, begin_sweep, fail_run, read_sweep, reason_of, sweep_runs
from evaluation.report.sweep import SweepReport
from evaluation.scores import SCORES_CSV, failed, read_scores, scored_runs

STEPS = {  # the settings of each method that say how many steps its phases have
    "score_distillation": ("steps.distillation",),
    "tune_a_video": ("method.tuning.steps", "method.inversion_steps", "method.sampling_steps"),
    "fatezero": ("method.sampling_steps",),
    "tokenflow": ("method.inversion_steps", "method.sampling_steps"),
    "flatten": ("method.inversion_steps", "method.sampling_steps", "method.injection_steps"),
    "control_video": ("method.sampling_steps",),
}


def arguments(
    doc: str | None, name: str, pairs: int, more: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> argparse.Namespace:
    """The command line of experiment `name`: where it writes, how many pairs it takes, overrides in Hydra's words.

    more  its own options, by flag what argparse wants to know
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for assd.run, such as steps.distillation=20")
    parser.add_argument("--output", type=Path, default=Path("outputs") / name)
    parser.add_argument("--pairs", type=at_least_one, default=pairs, help="the first so many of the dataset")
    for flag, about in more.items():
        parser.add_argument(flag, **about)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    write_text(options.output / "command.txt", f"python -m experiments.{name} {shlex.join(sys.argv[1:])}\n")
    return options


def at_least_one(text: str) -> int:
    """A number of pairs on a command line. Raises argparse's error for one below 1."""
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {count}")
    return count


def sweep(output: Path, pairs: int, choices: Sequence[str], overrides: Sequence[str]) -> list[Path]:
    """Runs `assd.run --multirun` in a process of its own, and returns its runs; pairs done before are not redone.

    Pairs that failed are left to the table to name. The runs are those that sweep.json names; one that was refused,
    since its folder holds another configuration, is named and left out. Raises InputError when there is no run with
    scores.
    """
    run_sweep(output, pairs, choices, overrides)
    record = read_sweep(output)
    reasons = {run: reason_of(record, run.name) for run in sweep_runs(output)}
    refused = {run: reason for run, reason in reasons.items() if is_of_before(run, reason)}
    said = "; ".join(f"{run} is left out: {reason}" for run, reason in refused.items())
    runs = [run for run in sweep_runs(output) if run not in refused]
    require(bool(runs) or not refused, said)
    print(said, end="\n" if said else "", file=sys.stderr)
    return scored_runs(runs or [output])


def is_of_before(run: Path, reason: str | None) -> bool:
    """Whether a run's scores are of an earlier command: this one failed as a whole, and they know of no failure."""
    return bool(reason) and (run / SCORES_CSV).is_file() and failed(read_scores(run)).empty


def sweep_parts(output: Path, pairs: int, parts: Sequence[Sequence[str]], overrides: Sequence[str]) -> None:
    """Several sweeps into one folder, each in a process of its own: in the end one sweep with one report.

    So a sweep may choose what no one command could, and what it costs does not depend on what another one left in
    memory. Which runs there are, and why one failed, stands in sweep.json.
    """
    done = []
    for choices in parts:
        run_sweep(output, pairs, choices, overrides)
        done.append(read_sweep(output))
    begin_sweep(output, overrides)
    for part in done:
        for run, chosen in part["runs"].items():
            add_run(output, run, chosen)
        for run, reason in part["failed"].items():
            fail_run(output, run, reason)
    SweepReport().report(output)


def run_sweep(output: Path, pairs: int, choices: Sequence[str], overrides: Sequence[str]) -> None:
    """See `sweep`."""
    limit = [f"dataset.limit={pairs}"] if "limit" in composed([*overrides]).dataset else []
    typed = [f"output={quoted(str(output))}", *limit, *choices, *overrides]
    command = [sys.executable, "-m", "assd.run", "--multirun", *typed]
    code = subprocess.run(command, check=False).returncode
    if code:
        print(f"the sweep ended with exit code {code}: going on with the runs that are there", file=sys.stderr)


def by_choice(runs: Sequence[Path], key: str) -> dict[str, list[Path]]:
    """Runs by what they have chosen for `key`; those that leave it at its default under `default`."""
    found: dict[str, list[Path]] = {}
    for run in runs:
        found.setdefault(by_key(run_overrides(run)).get(key, "default"), []).append(run)
    return found


def first_pairs(cfg: DictConfig, count: int) -> Iterator[tuple[TextVideoPair, Footage]]:
    """The dataset's first pairs with their footage; one whose clip can't be read is named and left out.

    Raises InputError at the end where none could be read.
    """
    found = False
    for pair in instantiate(cfg.dataset, _convert_="all")[:count]:
        try:
            footage = pair.read(pair.canvas)
        except InputError as error:
            print(f"{pair.id} is left out: {error}", file=sys.stderr)
            continue
        found = True
        yield pair, footage
    require(found, f"none of the first {count} pairs could be read: there is nothing to show")


def few_steps(overrides: Sequence[str], steps: int) -> list[str]:
    """What gives every phase of the method that overrides choose so many steps; ControlVideo smooths at the last one.

    Raises InputError for a method whose steps are not known here.
    """
    method = chosen_method(overrides)
    require(method in STEPS, f"method must be one of {', '.join(STEPS)}; got {method!r}")
    smooth = ["method.smooth_steps=[1]"] if method == "control_video" else []
    return [*(f"{setting}={steps}" for setting in STEPS[method]), *smooth]


def chosen_method(overrides: Sequence[str]) -> str:
    """The method that overrides choose."""
    return by_key(overrides).get("method", "score_distillation")


def noise_footage(canvas: Canvas, seed: int) -> Footage:
    """A video of noise, for measuring."""
    shape = (canvas.num_frames, 3, canvas.height, canvas.width)
    return Footage(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1, fps=8.0)


def edits(runs: dict[str, Path], pair: TextVideoPair) -> dict[str, UInt8[Tensor, "n H W 3"]]:
    """Each run's edit of a pair under the run's label, where there is one."""
    files = {label: FinishedEdit(run / "edits" / pair.id).video("edited", ".mkv") for label, run in runs.items()}
    return {label: read_video(file, None).frames for label, file in files.items() if file}


def write_table(output: Path, name: str, parts: Callable[[str], Sequence[str]]) -> str:
    """Writes <name>.tex and <name>.md of the parts that there are in either format; returns the Markdown."""
    text = ""
    for suffix, form in (("tex", "latex"), ("md", "md")):
        text = "\n\n".join(part.strip() for part in parts(form)) + "\n"
        write_text(output / f"{name}.{suffix}", text)
    return text


def leave(
    output: Path, name: str, sheets: list[Image.Image], table: pd.DataFrame, means: pd.DataFrame | None = None
) -> None:
    """Writes the figure and its table, prints the means, and says where to look.

    Raises InputError for a figure of nothing.
    """
    require(bool(sheets), f"{name} has nothing to show: none of its pairs could be read")
    pictures.save(pictures.stack(sheets), output / f"{name}.png")
    table.to_csv(output / f"{name}.csv", index=False)
    if means is not None:
        print(means.round(3).to_markdown())
    print(f"Look at {output / name}.png; the numbers are in {name}.csv, the command in command.txt")
