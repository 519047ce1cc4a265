"""Checkpoints on disk: tensors and numbers in one safetensors file, from which no code can be loaded."""

import json
from dataclasses import asdict
from pathlib import Path

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


def read_checkpoint(path: Path) -> tuple[Checkpoint, dict, Cost]:
    """The checkpoint, on the CPU, what it belongs to, and what the edit had cost; earlier versions did not say that.

    Raises InputError for a damaged file, which it names.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dictionary)
        checkpoint = {**tensors, **json.loads(metadata[NUMBERS])}
        identity = json.loads(metadata[IDENTITY])
        cost = Cost(**json.loads(metadata.get(COST, "{}")))
        checkpoint["step"] = int(checkpoint["step"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is no whole checkpoint ({type(error).__name__}: {error}): remove it, and the pair begins anew"
        ) from error
    return checkpoint, identity, cost
