"""One bad input: what it is, how it is made, which command is given it, and what the answer must say."""

import contextlib
import hashlib
import importlib
import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from unittest import mock

from hydra.core.global_hydra import GlobalHydra

from tests.commands import Outcome

COMMAND_LINES = ("evaluation.report", "evaluation.study")  # packages: theirs is in __main__
ALWAYS = ("*.lock", "*.lock-*", "*/run.log")  # what every command may leave: files to take hold of, and its log


@dataclass(frozen=True, kw_only=True)
class BadInput:
    """A bad input and its answer.

    make     makes it in an empty folder
    command  what follows `python -m`; `{here}` is the folder
    thing, remedy  what the answer must name, and what it must say to do, or what would be right
    writes   patterns of the files below the folder that the command may write all the same: a run that goes on without
             a pair has a record of that
    """

    command: str
    thing: str
    remedy: str
    make: Callable[[Path], object] = lambda here: None
    writes: tuple[str, ...] = ()

    def answer(self, here: Path) -> Outcome:
        """What the command says, in a folder in which the bad input was made."""
        return call(*(word.replace("{here}", str(here)) for word in shlex.split(self.command)))

    def parts(self, here: Path) -> tuple[str, str]:
        """The thing and the remedy."""
        return self.thing.replace("{here}", str(here)), self.remedy

    def sentence(self, outcome: Outcome, here: Path) -> str:
        """Of the answer, the last words, or the line above them that says more of what it must."""
        *above, last_words = outcome.text.split("error: ")
        lines = [line.strip() for line in "".join(above).splitlines() if not line.startswith("Error executing job")]
        return max(
            [last_words.strip(), *lines], key=lambda line: sum(Outcome(0, line).says(p) for p in self.parts(here))
        )

    def touched(self, before: dict[str, str], after: dict[str, str]) -> list[str]:
        """The files that the command changed, removed or made, and must not."""
        changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        return sorted(name for name in changed if not any(fnmatch(name, to) for to in (*self.writes, *ALWAYS)))


def call(module: str, *arguments: str) -> Outcome:
    """A command line within this process, from its start to its end, on a wide terminal."""
    main = importlib.import_module(f"{module}.__main__" if module in COMMAND_LINES else module).main
    GlobalHydra.instance().clear()
    printed, last_words, code = io.StringIO(), "", 0
    environment = mock.patch.dict(os.environ, HYDRA_FULL_ERROR="0", COLUMNS="2000")
    streams = contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed)
    with mock.patch.object(sys, "argv", [module, *arguments]), environment, logging_kept(), streams[0], streams[1]:
        try:
            main()
        except SystemExit as end:
            last_words = end.code if isinstance(end.code, str) else ""
            code = 1 if last_words else int(end.code or 0)
        except Exception:
            last_words, code = traceback.format_exc(), 1
    return Outcome(code, f"{printed.getvalue()}\n{last_words}")


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """After it, the root logger is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def digests(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder; of a link, where it leads."""
    return {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*") if not plain_folder(path)}


def plain_folder(path: Path) -> bool:
    """Whether this is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def digest(path: Path) -> str:
    """See `digests`."""
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return hashlib.blake2b(path.read_bytes()).hexdigest() if path.is_file() else "special"
