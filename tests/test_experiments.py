"""The figures, each as a person runs it, at the smallest size at which it means anything."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs an experiment's `main` with one pair."""

    def run(name: str, output: Path, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, "--output", str(output), "--pairs", "1", *arguments, "device=cpu"])
        importlib.import_module(f"experiments.{name}").main()

    return run


def test_figure5(tmp_path, experiment):
    """Both models predict Z_0 worse from more noise; the picture has a row for each model and t."""
    experiment("figure5", tmp_path)
    table = pd.read_csv(tmp_path / "figure5.csv").pivot_table(index="t", columns="model", values="PSNR to source (dB)")
    assert table.shape == (5, 2)
    assert (table.loc[100] > table.loc[900] + 5).all()
    assert Image.open(tmp_path / "figure5.png").height > 1000
    assert "experiments.figure5" in (tmp_path / "command.txt").read_text()


def test_figure6(tmp_path, experiment):
    """The first state is the source's reconstruction, so its change outside the edit is the least."""
    experiment("figure6", tmp_path, "method.num_steps=8")
    table = pd.read_csv(tmp_path / "figure6.csv")
    assert table.step.tolist() == list(range(9))
    change = table.filter(like="contamination").iloc[:, 0]
    assert change.idxmin() == 0
    assert (tmp_path / "figure6.png").exists()


def test_figure7(tmp_path, experiment):
    """One point for each lambda."""
    experiment("figure7", tmp_path, "method.num_steps=2", "tracking.mode=disabled")
    assert pd.read_csv(tmp_path / "figure7.csv")["lambda"].tolist() == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert all((tmp_path / name).exists() for name in ("figure7.png", "figure7-curve.png"))
