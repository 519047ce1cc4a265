"""The figures, each as a person runs it, at the smallest size at which it means anything."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from assd.models import resolve_folder
from evaluation.scores import COLUMNS, row, update_scores

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs an experiment's `main` with one pair."""

    def run(name: str, output: Path, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, "--output", str(output), "--pairs", "1", *arguments, "device=cpu"])
        importlib.import_module(f"experiments.{name}").main()

    return run


def test_ablation(tmp_path, experiment, monkeypatch):
    """A row for each ablation under its own name, whatever else the command says, with differences to Video-DDS."""
    from experiments import ablation  # noqa: PLC0415

    monkeypatch.setattr(ablation, "ABLATIONS", ("video_dds", "full"))
    monkeypatch.setattr(ablation, "SEEDS", (0,))
    weights = f"model.path={resolve_folder('pkg://assd.shapes/weights')}"  # an override that is no file name
    experiment("ablation", tmp_path, "steps.distillation=1", "tracking.mode=disabled", "metric=[psnr]", weights)
    table = pd.read_csv(tmp_path / "figure4.csv").set_index("method")
    assert {"video_dds", "full", "source, unedited"} <= set(table.index)
    assert (table.loc["full"].pairs == 1).all()
    assert np.isfinite(table.loc["full"].difference).all()
    assert (tmp_path / "figure4.png").is_file()
    text = (tmp_path / "table.md").read_text()
    assert "Paired difference to video_dds" in text
    assert "Paired difference to full" in text
    assert r"\toprule" in (tmp_path / "table.tex").read_text()


def test_tune(tmp_path, experiment, monkeypatch):
    """One table a parameter, each value's scores under its own name, the default among them; pairs none of the 30."""
    from experiments import tune  # noqa: PLC0415

    def edited_already(output, pairs, choices, overrides):
        """Runs as the sweep leaves them; the higher lambda, the better."""
        assert "dataset.split=tuning" in overrides
        runs = []
        for value in choices[0].partition("=")[2].split(",") if choices else [""]:
            run = output / f"run{value}"
            run.mkdir()
            said = [f"attention.lam={value}"] if value else []
            (run / "environment.json").write_text(json.dumps({"overrides": [*said, *overrides]}))
            rows = [row(pair, "edited", "psnr", "higher", float(value or 0.8) + i) for i, pair in enumerate("ab")]
            update_scores(run, pd.DataFrame(rows, columns=COLUMNS))
            runs.append(run)
        return runs

    (tmp_path / "grids.yaml").write_text("score_distillation: {attention.lam: [0.0, 0.8, 1.0]}")
    monkeypatch.setattr(tune, "GRIDS", tmp_path / "grids.yaml")
    monkeypatch.setattr(tune, "sweep", edited_already)
    experiment("tune", tmp_path)
    table = pd.read_csv(tmp_path / "tune.csv").set_index("method")
    assert table["mean"].to_dict() == {f"attention.lam={lam}": lam + 0.5 for lam in (0.0, 0.8, 1.0)}
    assert table.difference.dropna().to_dict() == pytest.approx({"attention.lam=0.0": -0.8, "attention.lam=1.0": 0.2})
    assert "## attention.lam" in (tmp_path / "tune.md").read_text()


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
    experiment("figure6", tmp_path, "steps.distillation=8")
    table = pd.read_csv(tmp_path / "figure6.csv")
    assert table.step.tolist() == list(range(9))
    change = table.filter(like="contamination").iloc[:, 0]
    assert change.idxmin() == 0
    assert (tmp_path / "figure6.png").exists()


def test_figure7(tmp_path, experiment, monkeypatch):
    """One point for each lambda."""
    from experiments import figure7  # noqa: PLC0415

    monkeypatch.setattr(figure7, "LAMBDAS", (0.0, 0.8))
    experiment("figure7", tmp_path, "steps.distillation=2", "tracking.mode=disabled")
    assert pd.read_csv(tmp_path / "figure7.csv")["lambda"].tolist() == [0.0, 0.8]
    assert all((tmp_path / name).exists() for name in ("figure7.png", "figure7-curve.png"))
