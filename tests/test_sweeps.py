"""Sweeps: several runs of one command."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from assd.config import composed
from evaluation.comparison import collect, failures, summarize
from tests.commands import PAIR, QUICK, edit_folders, start, wait

pytestmark = pytest.mark.end_to_end


def test_several_ablations_are_several_runs(tmp_path: Path) -> None:
    """-m edits once for each ablation, each in a run directory of its name, with results of its own."""
    outcome = wait(start(tmp_path, "-m", "+ablation=video_dds,no_waf", *QUICK))
    assert outcome.code == 0, outcome.text
    folders = edit_folders(tmp_path)
    names = [folder.parent.parent.name for folder in folders]
    assert len(folders) == 2
    assert "ablation=no_waf" in names[0]
    assert "ablation=video_dds" in names[1]
    runs = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [(run, runs[run][0]) for run in sorted(runs)] == list(zip(names, ("ablation=no_waf", "ablation=video_dds")))
    assert all(f">{run}<" in (tmp_path / "report.html").read_text(encoding="utf-8") for run in ("no_waf", "video_dds"))
    first, second = (load_file(folder / "latents.safetensors") for folder in folders)
    assert torch.equal(first["Z_ref"], second["Z_ref"])
    assert not torch.equal(first["Z"], second["Z"])


def test_a_sweep_goes_on_after_a_job_that_fails(tmp_path: Path) -> None:
    """The first of two diverges: the second is done, the end is no success, and a table of both names the pair."""
    outcome = wait(start(tmp_path, "-m", "optimizer.lr=1e30,0.1", *QUICK))
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    failed, done = (folder.parent.parent for folder in sorted(edit_folders(tmp_path), reverse=True))
    scores = collect([failed, done])
    (said,) = failures(scores)
    assert said.startswith(f"optimizer.lr=1e+30: no result for {PAIR} (clip")
    assert "optimizer.lr=0.1" in set(summarize(scores).method)


def test_runs_side_by_side_are_runs_one_after_another(tmp_path: Path) -> None:
    """joblib's two processes leave the bits and the scores that one process leaves."""
    chosen = ["+ablation=video_dds,sds", "dataset.limit=1", "steps.distillation=2"]
    together = ["hydra/launcher=local", "hydra.launcher.n_jobs=2"]
    for process in (start(tmp_path / "alone", "-m", *chosen), start(tmp_path / "together", "-m", *chosen, *together)):
        outcome = wait(process)
        assert outcome.code == 0, outcome.text
    files = [*(tmp_path / "alone").glob("*/scores.csv"), *(tmp_path / "alone").glob("*/edits/*/latents.safetensors")]
    assert len(files) == 4
    for file in files:
        assert file.read_bytes() == (tmp_path / "together" / file.relative_to(tmp_path / "alone")).read_bytes()


def test_a_sweep_goes_into_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment's folder may have commas, brackets and spaces in its name: Hydra reads what was meant."""
    from experiments import common  # noqa: PLC0415

    commands = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(common.subprocess, "run", run)
    output = tmp_path / "lambda [0.5, 1], it's"
    common.run_sweep(output, 2, ["+ablation=full"], ["seed=1"])
    ((*_, multirun, to, limit, choice, seed),) = commands
    assert (multirun, limit, choice, seed) == ("--multirun", "dataset.limit=2", "+ablation=full", "seed=1")
    assert composed([to]).output == str(output)
