"""Where a program speaks to a person: it goes on when nobody listens any more."""

import io
import os
import sys
from typing import Any

from rich.console import Console


class Listener:
    """A text stream that a closed pipe behind it (`| head -1`) does not break: from then on nothing is written."""

    def __init__(self, stream: io.TextIOBase):
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream does."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return self._go_on(text)

    def flush(self) -> None:
        """As the stream does."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._go_on("")

    def _go_on(self, text: str) -> int:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # for everybody who writes there
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class StandardOutput:
    """Python's standard output, whichever it is at the time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(Listener(sys.stdout), name)


def console() -> Console:
    """A console on standard output."""
    return Console(file=StandardOutput())  # type: ignore[arg-type]
