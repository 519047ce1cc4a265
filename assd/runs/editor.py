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
from assd.errors import EXPECTED, DivergedError, InputError, NotHereError, require
from assd.files import write_text
from assd.methods.method import Checkpoint, Method, Request
from assd.runs.cost import Meter
from assd.runs.directory import EditDirectory, RunDirectory
from assd.runs.interrupt import Stop, Stopped
from assd.runs.lock import BusyError, one_writer


@dataclass(frozen=True)
class Editor:
    """Takes pairs from their frames to their files.

    device       where the method's networks are
    on_steps     receives a pair's id and the curves of its last steps
    on_finished  receives the folder of each pair that is finished
    problems  by id: why a pair has no result in this run, or no scores
    busy      the ids among them that another job is at: nothing is written about these
    unscored  the ids among them that are finished, and could not be scored
    failed    the ids among the others; a pair whose video is not on this machine is left out and is no failure
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
    busy: list[str] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
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
                        self.hand_on(folder)

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
        with contextlib.ExitStack() as held:
            failure = hold(folders, held) or self.failure_of(folders, bars)
        if failure is None:
            return
        if len(folders) > 1:
            for folder in folders:
                self.attempt([folder], bars)
            return
        self.note(folders[0].pair.id, failure)

    def failure_of(self, folders: list[EditDirectory], bars: Progress) -> Exception | None:
        """Edits a group that nobody else writes into. What went wrong is kept in the folder of a pair that is alone."""
        try:
            self.edit(folders, bars)
            return None
        except Stopped:
            raise
        except Exception as error:
            failure = explained(error, folders[0])
        torch.cuda.empty_cache()  # here, where no traceback holds the tensors of the attempt any more
        if len(folders) == 1:
            with contextlib.suppress(OSError, InputError):  # a full disk, or a record that is damaged
                folders[0].fail(failure, self.seed)
        return failure

    def hand_on(self, folder: EditDirectory) -> None:
        """A finished pair, to be scored. What may be expected to go wrong then is a problem of this pair alone."""
        try:
            self.on_finished(folder)
        except EXPECTED as error:
            self.unscored.append(folder.pair.id)
            self.say(folder.pair.id, explained(error, folder))

    def note(self, pair: str, failure: Exception) -> None:
        """Remembers why a pair has no result, and says so."""
        if not isinstance(failure, NotHereError):
            (self.busy if isinstance(failure, BusyError) else self.failed).append(pair)
        if isinstance(failure, DivergedError):
            self.diverged.append(pair)
        self.say(pair, failure)

    def say(self, pair: str, problem: Exception) -> None:
        """Keeps a pair's problem, and prints it."""
        self.problems[pair] = str(problem)
        self.console.print(Text(f"{pair}: {problem}", style="red"))

    def edit(self, folders: list[EditDirectory], bars: Progress) -> None:
        """Pairs of one clip from its frames, or their last checkpoints, to their files.

        Finished ones are checked, and given the PNG frames that are asked for now and were not then.
        """
        first = folders[0].pair
        footage = first.read(self.method.canvas)
        for folder in folders:
            folder.check_belongs(folder.identity(footage, self.seed))
            if folder.finished and self.save_frames:
                folder.add_frames(footage)
        folders = [folder for folder in folders if not folder.finished]
        if not folders:
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


def hold(folders: list[EditDirectory], held: contextlib.ExitStack) -> Exception | None:
    """Keeps others out of the folders until `held` is left; who is there already, or why it can't be done."""
    try:
        for folder in folders:
            held.enter_context(one_writer(folder.path))
        return None
    except (InputError, OSError) as error:
        return explained(error, folders[0])


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
    """How many pairs have no result or no scores, and what to do about it; nothing where all have both."""
    again = [pair for pair in editor.failed if pair not in editor.diverged]
    sentences = [
        (editor.failed, "{n} of {count} pairs could not be edited ({ids}); the others are kept"),
        (again, "The same command tries the failed ones again"),
        (editor.diverged, "With the same settings {ids} would diverge again: see what they say"),
        (editor.busy, "{n} of {count} pairs were left to another job ({ids}): when it ends, the same command goes on"),
        (editor.unscored, "{n} of {count} pairs could not be scored ({ids}): their edits are kept, see what they say"),
    ]
    return ". ".join(text.format(n=len(ids), count=count, ids=", ".join(ids)) for ids, text in sentences if ids)
