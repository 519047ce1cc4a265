"""Checkpoints on disk: tensors and numbers in one safetensors file, from which no code can be loaded."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assd.errors import InputError
from assd.files import aside
from assd.methods.method import Checkpoint
from assd.runs.cost import Cost

NUMBERS, IDENTITY, COST = "numbers", "identity", "cost"  # the file's metadata


def write_checkpoint(path: Path, checkpoint: Checkpoint, identity: dict, cost: Cost) -> None:
    """Writes a checkpoint, what it belongs to, and what the edit has cost so far."""
    tensors = {key: own(value) for key, value in checkpoint.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in checkpoint.items() if not isinstance(value, Tensor)}
    metadata = {NUMBERS: json.dumps(numbers), IDENTITY: json.dumps(identity), COST: json.dumps(asdict(cost))}
    with aside(path) as partial:
        save_file(tensors, partial, metadata)


def own(tensor: Tensor) -> Tensor:
    """A copy on the CPU that shares its memory with nothing."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint, on the CPU. Raises InputError for a damaged file, which it names."""
    with opened(path) as file:
        numbers, *_ = notes_of(file)
        return {key: file.get_tensor(key) for key in file.keys()} | numbers  # noqa: SIM118  (not a dictionary)


def read_notes(path: Path) -> tuple[int, dict, Cost]:
    """Steps done, what the checkpoint belongs to, and what the edit had cost, without reading a tensor.

    Raises InputError for a damaged file, which it names.
    """
    with opened(path) as file:
        numbers, identity, cost = notes_of(file)
        return numbers["step"], identity, cost


def notes_of(file: Any) -> tuple[dict[str, Any], dict, Cost]:
    """What stands beside the tensors of an open checkpoint; earlier versions did not say what the edit had cost."""
    metadata = file.metadata() or {}
    numbers, identity = json.loads(metadata[NUMBERS]), json.loads(metadata[IDENTITY])
    return numbers | {"step": int(numbers["step"])}, identity, Cost(**json.loads(metadata.get(COST, "{}")))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A checkpoint's file. Whatever it lacks becomes an InputError."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is no whole checkpoint ({type(error).__name__}: {error}): remove it, and the pair begins anew"
        ) from error
