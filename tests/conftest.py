"""What all tests share. `assd` is imported inside the fixtures: type checks hook into its first import."""

# ruff: noqa: PLC0415

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # of this process and those it starts: pytest-xdist keeps the cores busy

import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
# Shapes and types are checked at every call, an int being good enough where a float is written.
install_import_hook(["assd", "evaluation"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is not end_to_end is unit; of the examples in docstrings, the one that edits a video is not.

    Slow files come first: a long one that began last would leave the other process idle.
    """
    for item in items:
        if item.name == "assd.editing":
            item.add_marker("end_to_end")
        if not item.get_closest_marker("end_to_end"):
            item.add_marker("unit")
    slow = {item.path for item in items if item.get_closest_marker("end_to_end")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_video_model():
    """The embedded world's text-to-video model with random weights."""
    from assd.data.pairs import Canvas
    from assd.shapes import networks

    return random_model(networks.video_unet, canvas=Canvas(8, 64, 64))


@pytest.fixture(scope="session")
def tiny_image_model():
    """The embedded world's text-to-image model with random weights."""
    from assd.shapes import networks

    return random_model(networks.image_unet, canvas=None)


def random_model(make_unet: Callable, canvas: Any):
    """Random weights, none of them zero: temporal layers would otherwise start as the identity."""
    from diffusers import DDPMScheduler

    from assd.models import LatentDiffusion
    from assd.shapes import networks

    torch.manual_seed(0)
    parts = dict(unet=make_unet(), vae=networks.autoencoder(), text_encoder=networks.text_encoder())
    for module in parts.values():
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return LatentDiffusion(
        **parts,
        vae_config=dict(parts["vae"].config),
        tokenizer=networks.tokenizer(),
        scheduler=DDPMScheduler.from_config(networks.scheduler().config),
        canvas=canvas,
    )


@pytest.fixture
def assd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Callable]:
    """The command line within this process: `assd("seed=1", ...)`; an unexpected exception is one here too.

    Without tracking and with one metric, unless it is to be `full`.
    """
    import logging
    import sys

    from hydra.core.global_hydra import GlobalHydra

    from assd.run import main
    from tests.commands import LIGHT, Outcome

    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def call(*overrides: str, full: bool = False) -> Outcome:
        GlobalHydra.instance().clear()
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["assd", "device=cpu", *([] if full else LIGHT), *overrides])
        code, last_words = 0, ""
        try:
            main()
        except SystemExit as end:
            if isinstance(end.code, str):  # what Python prints on leaving
                code, last_words = 1, end.code
            else:
                code = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(code, printed.out + printed.err + last_words)

    yield call
    GlobalHydra.instance().clear()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.fixture(scope="session")
def finished_run() -> Callable[..., Path]:
    """Makes a run directory as the editor leaves it, in which an edit is what `edit` makes of the pair's footage."""
    from tests.finished import finished_run

    return finished_run


@pytest.fixture(scope="session")
def read_back() -> Callable[[Path], dict]:
    """Reads what W&B's offline files hold."""
    import json
    import subprocess
    import sys

    def read_back(directory: Path) -> dict:
        """The records of a run's offline files, in the order in which they were begun."""
        found: dict = {"history": [], "summary": {}, "exit": None, "run": None, "ids": []}
        wandb = Path(sys.executable).with_name("wandb")
        for file in sorted(directory.glob("wandb/offline-run-*/run-*.wandb")):
            command = [wandb, "leet", "inspect", "--json", file]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            for record in map(json.loads, lines):
                if record["type"] == "history":
                    found["history"].append(record["history"]["item"])
                elif record["type"] == "summary":
                    found["summary"] |= record["summary"]["update"]
                elif record["type"] == "run":
                    found["run"] = record["run"]
                    found["ids"].append(record["run"]["run_id"])
                elif record["type"] == "exit":
                    found["exit"] = record["exit"].get("exit_code", 0)
        return found

    return read_back
