"""The figures, each as a person runs it, at the smallest size at which it means anything."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from assd.models import resolve_folder
from assd.runs.sweep import add_run, begin_sweep, fail_run
from evaluation.scores import COLUMNS, row, update_scores
from tests.commands import PAIR

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs an experiment's `main` with one pair."""

    def run(name: str, output: Path, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, "--output", str(output), "--pairs", "1", *arguments, "device=cpu"])
        importlib.import_module(f"experiments.{name}").main()

    return run


def test_ablation(tmp_path, experiment, monkeypatch):
    """A row for each ablation under its own name, whatever else the command says; what was added, as a difference."""
    from experiments import ablation  # noqa: PLC0415

    monkeypatch.setattr(ablation, "ABLATIONS", ("video_dds", "full"))
    monkeypatch.setattr(ablation, "SEEDS", 1)
    weights = f"model.path={resolve_folder('pkg://assd.shapes/weights')}"  # an override that is no file name
    experiment("ablation", tmp_path, "steps.distillation=1", "tracking.mode=disabled", "metric=[psnr]", weights)
    table = pd.read_csv(tmp_path / "figure4.csv").set_index("method")
    assert {"video_dds", "full", "source, unedited"} <= set(table.index)
    assert (table.loc["full"].pairs == 1).all()
    added = pd.read_csv(tmp_path / "components.csv").set_index("method").loc["all of it, to Video-DDS"]
    change = table.loc["full"]["mean"].to_numpy() - table.loc["video_dds"]["mean"].to_numpy()
    assert added.difference.to_numpy() == pytest.approx(change, abs=1e-6)
    assert (tmp_path / "figure4.png").is_file()
    text = (tmp_path / "table.md").read_text()
    assert "What each component changes" in text
    assert "all of it, to Video-DDS" in text
    assert r"\toprule" in (tmp_path / "table.tex").read_text()


def test_a_refused_run_lends_no_scores(tmp_path, monkeypatch, capsys):
    """What its folder holds is of an earlier command: it is named and left out; one whose pair failed is kept."""
    from experiments import common  # noqa: PLC0415

    begin_sweep(tmp_path, [])
    values = [row("a", "edited", "psnr", "higher", 1.0)]
    for name, rows in {"refused": values, "a-pair-failed": [*values, row("b", "edited", reason="no video")]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        update_scores(tmp_path / name, pd.DataFrame(rows, columns=COLUMNS))
        add_run(tmp_path, name, [])
        fail_run(tmp_path, name, "its folder holds another configuration")
    monkeypatch.setattr(common, "run_sweep", lambda *_: None)
    assert [run.name for run in common.sweep(tmp_path, 1, [], [])] == ["a-pair-failed"]
    assert "refused is left out: its folder holds another configuration" in capsys.readouterr().err


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


def test_quirks(tmp_path, experiment, monkeypatch, finished_run, capsys):
    """A table of each method, its differences to the first row; a row that can't be had is named with what it needs."""
    from experiments import quirks  # noqa: PLC0415

    def edited_already(output, pairs, choices, overrides):
        """A run as the sweep leaves it, whose edits lie the lower, the more of the options it has."""
        options = [override for override in overrides if override.startswith("method.")]
        run = output / "-".join(overrides[:-1])
        if not run.exists():
            finished_run(run, lambda footage: footage.frames, pairs=1)
            update_scores(
                run, pd.DataFrame([row(PAIR, "edited", "psnr", "higher", 30.0 - len(options))], columns=COLUMNS)
            )
        return [run]

    needs = {"method.flow=raft": "weights of RAFT", "method.wrap_control_frames=true": "a ControlNet\nand more"}
    monkeypatch.setattr(quirks, "missing", lambda overrides: next((needs[o] for o in overrides if o in needs), ""))
    monkeypatch.setattr(quirks, "sweep", edited_already)
    experiment("quirks", tmp_path)
    table = pd.read_csv(tmp_path / "quirks.csv").set_index(["table", "method"])
    assert table.loc["ControlVideo"].difference.dropna().to_dict() == dict.fromkeys(
        ["residuals_in_place", "interpolation=average", "window=3"], -1.0
    )
    windows = table.loc["ControlVideo in windows of 3 frames"]
    assert windows.difference.dropna().to_dict() == {"window_sees=first_and_last": -1.0}
    text = (tmp_path / "quirks.md").read_text()
    assert "flow=raft is left out: weights of RAFT" in text and "wrap_control_frames is left out: a ControlNet" in text
    assert (tmp_path / "quirks.png").is_file()


def test_what_a_quirk_needs_is_said(tmp_path):
    """By the method itself: a ControlNet's folder that is not there, the weights of an optical flow."""
    from experiments import quirks  # noqa: PLC0415

    nowhere = f"control_net.network.path={tmp_path / 'nowhere'}"
    assert "there is no such folder" in quirks.missing(["method=control_video", "device=cpu", nowhere])
    assert quirks.missing(["method=flatten", "device=cpu", "method.flow=true"]) == ""
    assert "got 'rift'" in quirks.missing(["method=flatten", "device=cpu", "method.flow=rift"])


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
