"""The check of the published models' memory and speed, on narrow networks, and the passes that an edit is made of."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from assd.config import composed
from assd.errors import InputError
from assd.models import resolve_folder
from experiments import check_models
from experiments.check_models import edit_noise, kinds, matmul_teraflops, missing_memory_said, settings, teraflops
from experiments.passes import networks_of, noting_passes
from tests.commands import SOURCE, TARGET

pytestmark = pytest.mark.end_to_end
PUBLISHED = "pkg://assd.models/published"
WIDTHS = {"block_out_channels": [32] * 4, "cross_attention_dim": 32, "layers_per_block": 1}
TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
UNET, CONTROL_NET = "image U-Net", "ControlNet"
F, KEYS, STEPS = 6, 3, 2  # frames of a video, TokenFlow's key frames among them, and the steps of a phase
PASSES = {  # of each network at each size of its batch, as docs/methods.md says
    "tune_a_video": {(UNET, F): STEPS + STEPS, (UNET, 2 * F): STEPS},
    "fatezero": {(UNET, F): STEPS, (UNET, 2 * F): STEPS},
    "tokenflow": {(UNET, F // KEYS): STEPS * KEYS, (UNET, 3 * KEYS): STEPS, (UNET, 3 * F // KEYS): STEPS * KEYS},
    "flatten": {(UNET, 1): 1, (UNET, F): STEPS + 1, (UNET, 2 * F): STEPS},
    "control_video": {(UNET, 2 * F): STEPS, (CONTROL_NET, 2 * F): STEPS},
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> Path:
    """The published architectures, each layer of them as narrow as it may be."""
    root = tmp_path_factory.mktemp("narrow")
    for name in ("stable_diffusion_v1_5", "control_net_v1"):
        shutil.copytree(resolve_folder(f"{PUBLISHED}/{name}"), root / name)
    for file in root.rglob("config.json"):
        config, narrower = json.loads(file.read_text()), TEXT if file.parent.name == "text_encoder" else WIDTHS
        file.write_text(json.dumps(config | {key: value for key, value in narrower.items() if key in config}))
    return root


def small(method: str, narrow: Path) -> list[str]:
    """The overrides of a check at that width, of few frames of 64 x 128."""
    control = f"control_net.network.architecture={narrow / 'control_net_v1'}"
    return settings([
        f"method={method}", "device=cpu", f"image_model.architecture={narrow / 'stable_diffusion_v1_5'}",
        f"model.num_frames={F}", "model.height=64", "model.width=128",
        *(["method.batch_size=2"] if method == "tokenflow" else []), *([control] if method == "control_video" else []),
    ])  # fmt: skip


def test_two_steps_of_score_distillation_are_measured():
    """Two passes of either U-Net, which take less time than the steps; twice the branches, twice the arithmetic."""
    method = instantiate(composed(["steps.distillation=2", "device=cpu"]).method, _convert_="all")
    trial = edit_noise(method, 0, SOURCE, TARGET)
    keys = len(range(0, trial.Z.shape[1], method.losses["joint_guidance"].stride))
    assert kinds(networks_of(method), trial.steps) == {("video U-Net", 4): 2, (UNET, 4 * keys): 2}
    for step in trial.steps:
        assert 0 < sum(noted.seconds for noted in step.passes) < step.seconds
    assert trial.moved and not replace(trial, Z=trial.Z_ref).moved
    assert matmul_teraflops(torch.device("cpu"), torch.float32) > 0.001
    noted = trial.steps[-1].passes[0]
    z, *rest = noted.args
    half = replace(noted, args=(z[:2], *rest), kwargs={name: value[:2] for name, value in noted.kwargs.items()})
    assert teraflops(noted) == 2 * teraflops(half) > 0


@pytest.mark.parametrize("method", PASSES)
def test_a_published_editor_makes_the_passes_that_its_page_says(method, narrow):
    """At the published depth with the published settings. Made again, a pass is the same, and leaves no gradient."""
    editor = instantiate(composed(small(method, narrow)).method, _convert_="all")
    trial, names = edit_noise(editor, 0), networks_of(editor)
    assert trial.moved
    assert kinds(names, trial.steps) == PASSES[method]
    passes = [noted for step in trial.steps for noted in step.passes]
    assert sum(bool(noted.trained) for noted in passes) == (STEPS if method == "tune_a_video" else 0)
    with noting_passes(names.values()) as again:
        for noted in {(noted.network, noted.batch, noted.trained): noted for noted in passes}.values():
            noted.again()
            assert (again[-1].network, again[-1].args[0].shape) == (noted.network, noted.args[0].shape)
            assert set(again[-1].trained) == {name for name in noted.trained if "temp" not in name}
    assert not any(parameter.requires_grad for parameter in names[UNET].parameters())


@pytest.mark.parametrize("method", PASSES)
def test_by_default_a_published_editor_is_checked_at_its_published_size(method):
    """Eight frames of 512 x 512, all networks with random weights; what is given precedes that."""
    cfg = composed(settings([f"method={method}", "+experiment=paper", "model.num_frames=9", "device=cpu"]))
    assert (cfg.method.num_frames, cfg.method.height, cfg.method.width) == (9, 512, 512)
    assert cfg.image_model.random and cfg.image_model.dtype == "float32"
    assert cfg.control_net is None or cfg.control_net.network.random


def test_memory_that_there_is_not_is_no_traceback():
    with pytest.raises(InputError, match=r"the memory is full at \d+\.\d GiB: .*allocate"), missing_memory_said():
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="another"), missing_memory_said():
        raise RuntimeError("another")


def test_the_command_prints_what_it_measured(narrow, monkeypatch, capsys):
    """Of a method with a ControlNet, whose passes are apart from those of the U-Net."""
    monkeypatch.setattr(sys, "argv", ["check_models", *small("control_video", narrow)])
    with pytest.raises(SystemExit) as end:
        check_models.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    for words in ("and a ControlNet of", f"2 passes of the ControlNet, a batch of {2 * F}", "step 2 of 2", "24 GiB"):
        assert words in printed
