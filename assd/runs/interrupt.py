"""Signals that ask a run to stop: it stops at the next step boundary, with everything saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

PREEMPTION = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")  # which Slurm sends before it takes the machine away


class Stopped(Exception):
    """A signal asked the run to stop; `number` is the signal's, `handler` what handled it before."""

    def __init__(self, number: int, handler: Any):
        super().__init__(signal.Signals(number).name)
        self.number, self.handler = number, handler

    @property
    def exit_code(self) -> int:
        """As a shell states it: 128 and the signal's number."""
        return 128 + self.number


class Stop:
    """Whether a signal has come."""

    def __init__(self) -> None:
        self.requested: tuple[int, Any] | None = None

    def check(self) -> None:
        """Raises Stopped when one has: called where everything can be saved."""
        if self.requested is not None:
            raise Stopped(*self.requested)


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Within it SIGINT, SIGTERM and the signal of a preemption are noted; a second one of a kind acts as it did before.

    Where a launcher such as submitit handles the preemption, its handler is kept for afterwards: it requeues the job.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        stop.requested = (number, before[number])
        signal.signal(number, before[number])

    for number in watched():
        before[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watched() -> list[int]:
    """SIGINT, SIGTERM, and the signal of a preemption where somebody handles it: by default it ends a program."""
    preemption: int | None = getattr(signal, f"SIG{PREEMPTION}", None)
    if preemption is None or not callable(signal.getsignal(preemption)):
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, preemption]


def hand_on(stopped: Stopped) -> None:
    """Lets a launcher's handler requeue the job; does nothing for a signal that only Python handled."""
    handler: Callable | Any = stopped.handler
    if callable(handler) and handler is not signal.default_int_handler:
        handler(stopped.number, None)
