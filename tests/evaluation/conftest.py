"""What tests of metrics share."""

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
