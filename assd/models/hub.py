"""Where a model's files lie: in a folder, in an installed package, or in a hub's repository, and how to fetch those."""

import importlib.resources
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub

EMBEDDED = "pkg://"  # a folder inside an installed package, `pkg://assd.shapes/weights`
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_folder(path: str) -> str:
    """`pkg://package/folder` to where that folder is installed; anything else unchanged."""
    if not path.startswith(EMBEDDED):
        return path
    package, _, folder = path.removeprefix(EMBEDDED).partition("/")
    return str(Path(str(importlib.resources.files(package))) / folder)


def is_folder(path: str) -> bool:
    """Whether a model's files lie in a folder. Raises FileNotFoundError for what is none and no hub id either."""
    found = Path(resolve_folder(path)).is_dir()
    if not found and not HUB_ID.fullmatch(path):
        raise FileNotFoundError("there is no such folder")
    return found


def how_to_fetch(
    path: str, wanted: Sequence[str], revision: str | None, download: str | None, licence: str | None
) -> str:
    """What a person types to get those files of a hub's repository; nothing for what looks like a folder.

    wanted    patterns of the files that are read
    download  the size of what is fetched
    """
    if not HUB_ID.fullmatch(path) or Path(path).parent.is_dir():
        return ""
    command = ["hf", "download", path, *(["--revision", revision] if revision else [])]
    command += [word for pattern in wanted for word in ("--include", pattern)]
    offline = " HF_HUB_OFFLINE is set, so nobody was asked." if huggingface_hub.constants.HF_HUB_OFFLINE else ""
    size = f" ({download})" if download else ""
    terms = f"\nIts licence is {licence}." if licence else ""
    return f"{offline}\nTo fetch it{size}:\n  {shlex.join(command)}{terms}"
