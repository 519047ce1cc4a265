"""Edits a run's pairs one after another, so that what goes wrong with one never stops the others."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from safetensors import SafetensorError

from assd.data.pairs import Footage, TextVideoPair
from assd.errors import DivergedError, InputError, NotHereError, require
from assd.files import write_text
from assd.methods.method import Checkpoint, Method, Request
from assd.runs.cost import Meter
from assd.runs.directory import EditDirectory, RunDirectory
from assd.runs.interrupt import Stop, Stopped
from assd.runs.lock import one_writer


@dataclass(frozen=True)
class Editor:
    """Takes pairs from their frames to their files.

    device       where the method's networks are
    on_steps     receives a pair's id and the curves of its last steps
    on_finished  receives the folder of each pair that is finished
    problems  by id: why a pair has no result in this run
    failed    the ids among them; a pair whose video is not on this machine is left out and is no failure
    diverged  the ids among these whose numbers became NaN or Inf: the same command would end in the same way
    """

    method: Method
    directory: RunDirectory
    seed: int
    save_frames: bool
    targets_together: int
    stop: Stop
    console: Console
    device: torch.device
    on_steps: Callable[[str, list[dict[str, Any]]], None]
    on_finished: Callable[[EditDirectory], None]
    problems: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)

    def __post_init__(self):
        require(self.targets_together >= 1, f"targets_together must be >= 1; got {self.targets_together}")

    def edit_all(self, pairs: list[TextVideoPair]) -> None:
        """Edits what is not finished; a pair that fails is noted, and the next one begins."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console
        ) as bars:
            for folders in self.groups(pairs):
                self.stop.check()
                self.attempt(folders, bars)
                for folder in folders:
                    if folder.pair.id not in self.problems:
                        self.on_finished(folder)

    def groups(self, pairs: list[TextVideoPair]) -> Iterator[list[EditDirectory]]:
        """Pairs that one call can edit: same clip and source prompt, and as far done; in order, when each is alone."""
        groups: dict[tuple, list[EditDirectory]] = {}
        for number, pair in enumerate(pairs):
            try:
                folder = self.directory.edit(pair)
                alone = self.targets_together == 1
                progress = number if alone else ("finished" if folder.finished else folder.step)
                groups.setdefault((pair.clip, pair.prompts.source, progress), []).append(folder)
            except (InputError, OSError) as error:  # an id that is no folder name, a damaged record or checkpoint
                self.note(pair.id, error)
        size = self.targets_together
        for group in groups.values():
            yield from (group[i : i + size] for i in range(0, len(group), size))

    def attempt(self, folders: list[EditDirectory], bars: Progress) -> None:
        """Edits a group, each pair alone where one of them spoils it; notes why a pair failed."""
        try:
            with contextlib.ExitStack() as stack:
                for folder in folders:
                    stack.enter_context(one_writer(folder.path))
                self.edit(folders, bars)
            return
        except Stopped:
            raise
        except Exception as error:
            failure = explained(error, folders[0])
        torch.cuda.empty_cache()  # here, where no traceback holds the tensors of the attempt any more
        if len(folders) > 1:
            for folder in folders:
                self.attempt([folder], bars)
            return
        (folder,) = folders
        with contextlib.suppress(OSError, InputError):  # a full disk, or a record that is damaged
            folder.fail(failure, self.seed)
        self.note(folder.pair.id, failure)

    def note(self, pair: str, failure: Exception) -> None:
        """Remembers why a pair has no result, and says so."""
        self.problems[pair] = str(failure)
        if not isinstance(failure, NotHereError):
            self.failed.append(pair)
        if isinstance(failure, DivergedError):
            self.diverged.append(pair)
        self.console.print(Text(f"{pair}: {failure}", style="red"))

    def edit(self, folders: list[EditDirectory], bars: Progress) -> None:
        """Pairs of one clip from its frames, or their last checkpoints, to their files; finished ones are checked."""
        first = folders[0].pair
        footage = first.read(self.method.canvas)
        for folder in folders:
            folder.check_belongs(folder.identity(footage, self.seed))
        if folders[0].finished:
            return
        meters = [Meter(self.device, folder.spent, len(folders)) for folder in folders]
        requests = [self.request(folder, footage, meter) for folder, meter in zip(folders, meters)]
        name = ", ".join(folder.pair.id for folder in folders)
        bar = bars.add_task(escape(name), total=self.method.num_steps, completed=requests[0].begin)
        edits = self.method(
            footage,
            first.prompts.source,
            requests,
            first.clip,
            advance=lambda step: self.advance(bars, bar, step),
        )
        costs = [meter.cost() for meter in meters]
        for folder, edit, cost in zip(folders, edits, costs):
            folder.finish(edit, footage, folder.identity(footage, self.seed), cost, self.save_frames)

    def advance(self, bars: Progress, bar: TaskID, step: int) -> None:
        """Moves the bar, and stops where a signal has come."""
        bars.update(bar, completed=step)
        self.stop.check()

    def request(self, folder: EditDirectory, footage: Footage, meter: Meter) -> Request:
        """What the method is asked for one pair, from where it stopped."""
        identity = folder.identity(footage, self.seed)

        def checkpoint(state: Checkpoint, curves: list[dict[str, Any]]) -> None:
            folder.checkpoint(state, curves, identity, meter.cost())
            self.on_steps(folder.pair.id, curves)

        return Request(folder.pair.prompts.target, folder.pair.options, folder.resume(), checkpoint)


def explained(error: Exception, folder: EditDirectory) -> Exception:
    """What an error means for a pair, without the traceback, which holds the tensors of the attempt.

    The traceback of what nobody expected is kept in a file beside the pair.
    """
    if isinstance(error, (InputError, DivergedError)):
        return error.with_traceback(None)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
        return InputError(
            f"out of memory ({str(error).partition(chr(10))[0]}). Lower targets_together, model.num_frames, "
            f"model.height or model.width, take model.dtype=float16 on a GPU, or attention=none; nothing is lost"
        )
    if isinstance(error, (OSError, SafetensorError)):  # a full disk is either of them
        return InputError(f"{error}. Nothing that was finished is lost; the same command goes on when this is mended")
    with contextlib.suppress(OSError):
        write_text(folder.path / "traceback.txt", "".join(traceback.format_exception(error)))
    return InputError(f"{type(error).__name__}: {error} (unexpected: see traceback.txt in {folder.path})")


def summary_of(editor: Editor, count: int) -> str:
    """How many pairs failed, and what to do about it."""
    again = [pair for pair in editor.failed if pair not in editor.diverged]
    advice = ["The same command tries the failed ones again"] if again else []
    if editor.diverged:
        advice.append(f"With the same settings {', '.join(editor.diverged)} would diverge again: see what they say")
    return (
        f"{len(editor.failed)} of {count} pairs could not be edited ({', '.join(editor.failed)}); the others are kept. "
        f"{'. '.join(advice)}"
    )
