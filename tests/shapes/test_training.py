"""The embedded models' architectures and training."""

import pytest
import torch
from torch import nn

from assd.errors import InputError
from assd.shapes import fit, networks, stages
from assd.shapes.corpus import Corpus, directed_clips


def test_the_control_net_starts_without_influence():
    """Its last convolutions are zero, and its edge convolutions end at the latents' size."""
    torch.manual_seed(0)
    image = networks.image_unet()
    network = networks.control_net(image)
    down, mid = network(
        torch.randn(2, 6, 16, 16), 10, torch.randn(2, 12, 64), torch.rand(2, 3, 64, 64), return_dict=False
    )
    assert not any(part.any() for part in (*down, mid))


def test_the_video_unet_starts_as_the_small_image_unet():
    """Applied to each frame alone, whatever the other frames are."""
    torch.manual_seed(0)
    image = networks.small_image_unet().eval()
    z, words = torch.randn(1, 6, 3, 16, 16), torch.randn(1, 12, 64)
    frames = image(z[0].movedim(0, 1), 500, words.expand(3, -1, -1)).sample
    assert torch.allclose(networks.video_unet(image).eval()(z, 500, words).sample[0].movedim(0, 1), frames, atol=1e-4)


@pytest.mark.end_to_end
def test_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    """A stage that dies and starts again draws the batches and keeps the averages that the unbroken one would have."""
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(fit, "faster_precision", lambda stage, device: torch.float32)
    corpus = Corpus.render(directed_clips("train", 8))
    device = torch.device("cpu")

    def trained(folder, dies_at=None):
        torch.manual_seed(0)
        vae = networks.autoencoder()
        stage = stages.autoencoder_stage(vae, corpus, device, steps=6, batch=2)
        healthy, calls = stage.loss, []

        def loss(draw, step):
            calls.append(draw)
            if len(calls) == dies_at:
                raise KeyboardInterrupt
            return healthy(draw, step)

        stage.loss = loss
        folder.mkdir(exist_ok=True)
        fit.fit(stage, folder, device)
        return vae.state_dict()

    unbroken = trained(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", dies_at=4)
    resumed = trained(tmp_path / "broken")
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_stage_of_another_length_is_refused(tmp_path):
    """A checkpoint's rate has fallen to zero: more steps would leave the one-cycle schedule."""
    cpu, line = torch.device("cpu"), nn.ModuleDict({"line": nn.Linear(1, 1)})

    def stage(steps):
        return fit.Stage("line", line, lambda draw, step: line["line"](torch.ones(1)).square().sum(), steps, lr=0.1)

    fit.fit(stage(4), tmp_path, cpu)
    fit.fit(stage(4), tmp_path, cpu)
    with pytest.raises(InputError, match="a stage of 4 steps, and 5 are asked for"):
        fit.fit(stage(5), tmp_path, cpu)
