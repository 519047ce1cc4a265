"""Checkpoints on disk."""

import json

import pytest
import torch
from safetensors.torch import save_file

from assd.errors import InputError
from assd.runs.checkpoint import read_checkpoint, read_notes, write_checkpoint
from assd.runs.cost import NOTHING, Cost

IDENTITY = {"clip": "01-car", "seed": 3, "options": {"blend_words": "jeep"}}
COST = Cost(seconds=1.5, peak_memory_gib=None)


def checkpoint():
    """Everything that a method may keep: tensors of several kinds, numbers, texts, lists."""
    return {
        "step": 7,
        "Z": torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0)),
        "optimizer.step": torch.tensor(7.0),
        "mask": torch.tensor([True, False]),
        "loss": 0.1 + 0.2,
        "phase": "sampling",
        "times": [1, 2, 3],
    }


def same(a, b):
    """Whether two checkpoints agree in every bit."""
    tensors = {key for key, value in a.items() if isinstance(value, torch.Tensor)}
    numbers = a.keys() - tensors
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in tensors
    ) and {key: a[key] for key in numbers} == {key: b[key] for key in numbers}  # fmt: skip


def test_a_checkpoint_comes_back(tmp_path):
    """Tensors to the bit, numbers to the last digit, texts, lists, what it belongs to, and what it cost."""
    write_checkpoint(tmp_path / "c.safetensors", checkpoint(), IDENTITY, COST)
    read = read_checkpoint(tmp_path / "c.safetensors")
    assert same(read, checkpoint())
    assert read_notes(tmp_path / "c.safetensors") == (7, IDENTITY, COST)
    assert type(read["step"]) is int


def test_a_checkpoint_of_an_earlier_version_cost_nothing(tmp_path):
    """Before costs were kept there was no such entry: the pair goes on, and is not refused as damaged."""
    metadata = {"numbers": json.dumps({"step": 2}), "identity": json.dumps(IDENTITY)}
    save_file({"Z": torch.zeros(1)}, tmp_path / "c.safetensors", metadata)
    assert read_notes(tmp_path / "c.safetensors") == (2, IDENTITY, NOTHING)


def test_views_and_shared_memory_are_kept_as_their_own(tmp_path):
    """A method hands over live tensors: views of one batch, which safetensors by itself refuses."""
    batch = torch.arange(12.0).reshape(3, 4)
    given = {"step": 1, "Z": batch[1], "again": batch[1], "column": batch[:, 1]}
    write_checkpoint(tmp_path / "c.safetensors", given, IDENTITY, COST)
    read = read_checkpoint(tmp_path / "c.safetensors")
    assert same(read, given)
    assert (tmp_path / "c.safetensors").stat().st_size < 1000


def test_the_next_one_replaces_it_whole(tmp_path):
    """Nothing half written is left, and nothing of the one before."""
    write_checkpoint(tmp_path / "c.safetensors", checkpoint(), IDENTITY, COST)
    write_checkpoint(tmp_path / "c.safetensors", {"step": 8, "Z": torch.zeros(1)}, IDENTITY, COST)
    assert read_checkpoint(tmp_path / "c.safetensors").keys() == {"step", "Z"}
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_failed_write_keeps_the_one_before(tmp_path):
    """What can't be written raises, and the checkpoint that was there is as it was."""
    write_checkpoint(tmp_path / "c.safetensors", checkpoint(), IDENTITY, COST)
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path / "c.safetensors", {"step": 8, "what": object()}, IDENTITY, COST)
    assert same(read_checkpoint(tmp_path / "c.safetensors"), checkpoint())
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    """Cut anywhere, in the header or in the last tensor, it is one sentence with the file and what to do."""
    file = tmp_path / "c.safetensors"
    write_checkpoint(file, checkpoint(), IDENTITY, COST)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"c\.safetensors is no whole checkpoint .*: remove it"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "metadata",
    [None, {"numbers": "{}", "identity": "{}"}, {"numbers": "{", "identity": "{}"}, {"numbers": '{"step": 1}'}],
)
def test_a_file_of_another_kind_is_named(tmp_path, metadata):
    """A safetensors file without a step, or without whom it belongs to, is no checkpoint."""
    save_file({"Z": torch.zeros(1)}, tmp_path / "c.safetensors", metadata)
    with pytest.raises(InputError, match="no whole checkpoint"):
        read_checkpoint(tmp_path / "c.safetensors")


def test_a_pickle_is_not_loaded(tmp_path):
    """A file that would run code when unpickled runs none."""

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save(Payload(), tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="no whole checkpoint"):
        read_checkpoint(tmp_path / "c.safetensors")
    assert not (tmp_path / "owned").exists()
