"""Files that are whole or not there: written under a name of their own, then renamed."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import torch

from assd.errors import require

PARTIAL = ".partial"  # in the name of a file that is being written


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A new name beside `path`, with its suffix; what is written there takes the place of `path` when the block ends.

    After an error nothing is left of it and `path` is as it was. A symbolic link at `path` is replaced, not followed.
    """
    partial = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{PARTIAL}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partial(folder: Path) -> None:
    """Removes what a killed program left half written in a folder. Only its one writer may call this."""
    for file in folder.glob(f".*{PARTIAL}*"):
        file.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8."""
    with aside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Indented, for people."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def require_weights(what: str, file: str) -> None:
    """Raises InputError where torch's cache does not hold torchvision's weights of this name: nothing is downloaded."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    require(
        path.is_file(), f"{what} needs torchvision's {file}, and {path} does not exist: put it there, or do without"
    )
