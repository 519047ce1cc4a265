"""One training loop: AdamW under a one-cycle rate, averaged weights, checkpoints that resume exactly."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from assd.console import console as make_console
from assd.device import wall_clock
from assd.diffusion.draw import generator
from assd.errors import require
from assd.files import aside, remove_partial

SEED = 0
EMA_DECAY = 0.998
CHECKPOINT_SECONDS = 60
LOG_STEPS = 50

console = make_console()


@dataclass
class Stage:
    """What one training loop needs: the modules that learn, and the loss by one step's random generator."""

    name: str
    modules: nn.ModuleDict
    loss: Callable[[torch.Generator], Tensor]
    steps: int
    lr: float


class Training:
    """What a checkpoint holds: modules, optimizer, schedule, averaged weights, precision, and steps done."""

    def __init__(self, stage: Stage):
        self.modules = stage.modules
        self.parameters = list(stage.modules.requires_grad_(True).parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=stage.lr, weight_decay=1e-2, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, stage.lr, total_steps=stage.steps, pct_start=0.05
        )
        self.average = EMAModel(self.parameters, decay=EMA_DECAY, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def parts(self) -> dict:
        """Everything that has a state, by name."""
        return {name: getattr(self, name) for name in ("modules", "optimizer", "schedule", "average")}

    def save(self, path: Path, step: int, precision: torch.dtype) -> None:
        """Whole or not at all: a kill never leaves half a checkpoint."""
        states = {name: part.state_dict() for name, part in self.parts().items()}
        with aside(path) as partial:
            torch.save(states | {"step": step, "precision": precision}, partial)

    def restore(self, path: Path) -> tuple[int, torch.dtype]:
        """Restores every state; returns the number of steps done and the precision they were done in.

        Raises InputError for a checkpoint of a training of another length: its rate falls to zero at that length.
        """
        stored = torch.load(path, map_location=self.parameters[0].device, weights_only=True)
        ours, theirs = self.schedule.total_steps, stored["schedule"]["total_steps"]
        require(
            ours == theirs,
            f"{path} belongs to a stage of {theirs} steps, and {ours} are asked for: ask for {theirs}, or begin in "
            f"another --work with --start-from the weights that this one ended in",
        )
        for name, part in self.parts().items():
            part.load_state_dict(stored[name])
        return stored["step"], stored["precision"]

    def advance(self, loss: Tensor) -> float:
        """One step of the optimizer; returns the loss."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.average.step(self.parameters)
        return loss.item()


def fit(stage: Stage, work: Path, device: torch.device) -> None:
    """Trains the stage's modules and leaves their averaged weights in them; checkpoints and losses go to `work`.

    A finished stage is read back from its checkpoint; one without steps keeps the weights it has.
    """
    remove_partial(work)
    if stage.steps:
        training, checkpoint = Training(stage), work / f"{stage.name}.pt"
        if checkpoint.exists():
            first, precision = training.restore(checkpoint)
        else:
            first, precision = 0, faster_precision(stage, device)
        run(stage, training, first, precision, checkpoint, device)
        training.average.copy_to(training.parameters)
    stage.modules.eval().requires_grad_(False)


def run(stage: Stage, training: Training, first: int, precision: torch.dtype, checkpoint: Path, device: torch.device):
    """The steps from `first` on. Batch and noise of a step depend on nothing but its number."""
    saved, losses = time.monotonic(), []
    with checkpoint.with_suffix(".jsonl").open("a") as log:
        for step in progress(stage, first):
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = stage.loss(generator(SEED, stage.name, step))
            losses.append(training.advance(loss))
            done = step + 1
            if done % LOG_STEPS == 0:
                print(json.dumps({"step": done, "loss": round(sum(losses) / len(losses), 5)}), file=log, flush=True)
                losses.clear()
            if done == stage.steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
                training.save(checkpoint, done, precision)
                saved = time.monotonic()


def faster_precision(stage: Stage, device: torch.device) -> torch.dtype:
    """bfloat16 or float32, whichever computes one step's gradients sooner here; the second of two steps counts.

    Processors without bfloat16 units take ten times longer in it, those with them half as long.
    """
    seconds = {}
    for precision in (torch.float32, torch.bfloat16):
        for _ in range(2):
            started = wall_clock(device)
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = stage.loss(generator(SEED, stage.name, 0))
            loss.backward()
            stage.modules.zero_grad()
            seconds[precision] = wall_clock(device) - started
    told = ", ".join(f"{value:.2f} s a step in {str(name).removeprefix('torch.')}" for name, value in seconds.items())
    console.print(f"{stage.name}: {told}")
    return min(seconds, key=seconds.__getitem__)


def progress(stage: Stage, first: int) -> Iterator[int]:
    """Step numbers under a progress bar with the time that remains."""
    columns = (TextColumn(stage.name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(stage.name, total=stage.steps, completed=first)
        for step in range(first, stage.steps):
            yield step
            bar.advance(task)
