"""What tests of metrics share."""

import shutil
from pathlib import Path

import pytest
import torch


@pytest.fixture
def put_weights(monkeypatch, tmp_path):
    """Lays a network's random weights where torchvision's published ones would lie."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def put(network: torch.nn.Module, file: str) -> None:
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / file)

    return put


@pytest.fixture(scope="session")
def perfect(finished_run, tmp_path_factory) -> Path:
    """A run of one pair, whose edit is the true one."""
    return finished_run(tmp_path_factory.mktemp("perfect") / "run", lambda known: known.truth, pairs=1)


@pytest.fixture
def perfect_run(perfect: Path, tmp_path: Path) -> Path:
    """A copy of it, for a test that changes it."""
    return Path(shutil.copytree(perfect, tmp_path / "run"))
