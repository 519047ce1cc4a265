"""Curves, clock and checkpoints of one call of a method, so that its loop reads down."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from assd.errors import DivergedError, require
from assd.methods.method import Advance, Checkpoint, Request

Item = TypeVar("Item")


@runtime_checkable
class Checkpointed(Protocol):
    """What a method says of its steps and of its checkpoints, which are at most so many steps and seconds apart."""

    @property
    def num_steps(self) -> int:
        """Of all its phases."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Steps."""
        ...

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds."""
        ...


class Recorder:
    """Hands out the steps of a method, and keeps what is measured at each.

    A checkpoint follows the last one after `every` steps or `seconds` seconds, whichever comes first, and after the
    last step, and before an error that `advance` raises. Numbers are read from the device, checked to be finite, and
    handed over as often.

    requests  edited together; Raises InputError when they resume at different steps
    clip      the video's name, for messages
    advice    what to try when a number is NaN or Inf
    """

    def __init__(
        self,
        requests: Sequence[Request],
        clip: str,
        num_steps: int,
        *,
        every: int,
        seconds: float,
        advance: Advance,
        advice: str,
    ):
        begins = sorted({request.begin for request in requests})
        require(len(begins) == 1, f"requests that are edited together must resume at one step; got {begins}")
        self.requests, self.clip, self.num_steps = requests, clip, num_steps
        self.every, self.seconds, self.advance, self.advice = every, seconds, advance, advice
        self.begin = begins[0]
        self._curves: list[list[dict]] = [[] for _ in requests]  # since the last checkpoint
        self._last = time.perf_counter()

    @classmethod
    def of(
        cls, method: Checkpointed, requests: Sequence[Request], clip: str, advance: Advance, advice: str
    ) -> "Recorder":
        """Of a call of a method, at the method's own intervals."""
        every, seconds = method.checkpoint_every, method.checkpoint_seconds
        return cls(requests, clip, method.num_steps, every=every, seconds=seconds, advance=advance, advice=advice)

    def phase(self, items: Sequence[Item], first: int = 0) -> Iterator[tuple[int, Item]]:
        """Of a phase that makes one step an item, from step number `first`: the steps that are still to do."""
        for step, item in enumerate(items, start=first):
            if step >= self.begin:
                yield step, item

    def note(self, step: int, measured: Sequence[dict[str, Any]], checkpoint: Callable[[int], Checkpoint]) -> None:
        """Notes what was measured at a step, one dictionary a request; saves where a checkpoint is due.

        `checkpoint(i)` makes the checkpoint of request i; `step` is added here. Raises DivergedError for a NaN or Inf.
        """
        for curve, of_request in zip(self._curves, measured):
            curve.append({"step": step, **of_request})
        done = step + 1
        is_due = done % self.every == 0 or done == self.num_steps
        if is_due or time.perf_counter() - self._last > self.seconds:
            self.save(done, checkpoint)
        try:
            self.advance(done)
        except BaseException:  # who stops the run here loses nothing
            self.save(done, checkpoint)
            raise

    def save(self, done: int, checkpoint: Callable[[int], Checkpoint]) -> None:
        """Hands over curves and a checkpoint after `done` steps."""
        plain = [self._finite(curve, request.target) for curve, request in zip(self._curves, self.requests)]
        seconds = (time.perf_counter() - self._last) / max(1, len(self._curves[0]))
        for i, (request, curve) in enumerate(zip(self.requests, plain)):
            request.checkpoint({"step": done, **checkpoint(i)}, [point | {"seconds": seconds} for point in curve])
        self._curves, self._last = [[] for _ in self.requests], time.perf_counter()

    def _finite(self, curve: list[dict], target: str) -> list[dict]:
        """The curve as plain numbers, read from the device at once. Raises DivergedError at the first that is none."""
        tensors = [value for point in curve for value in point.values() if isinstance(value, Tensor)]
        numbers = iter(torch.stack(tensors).tolist() if tensors else [])
        plain = [{key: next(numbers) if isinstance(v, Tensor) else v for key, v in point.items()} for point in curve]
        for point in plain:
            for name, value in point.items():
                if isinstance(value, float) and not abs(value) < float("inf"):
                    where = f"step {point['step']}" + (f", t = {point['t']}" if "t" in point else "")
                    raise DivergedError(
                        f"clip {self.clip!r}, {target!r}: {name.replace('_', ' ')} is {value} at {where}. "
                        f"The checkpoint before it is kept. {self.advice}"
                    )
        return plain


def check_checkpoints(every: int, seconds: float) -> None:
    """Raises InputError unless checkpoints are at least a step apart."""
    require(every >= 1, f"checkpoint_every must be >= 1; got {every}")
    require(seconds > 0, f"checkpoint_seconds must be > 0; got {seconds}")
