"""Models without trained weights. `assd` is imported inside the fixtures: type checks hook into its first import."""

# ruff: noqa: PLC0415

import pytest
import torch
from jaxtyping import install_import_hook

# Shapes and types are checked at every call, an int being good enough where a float is written.
install_import_hook(["assd", "evaluation"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(scope="session")
def tiny_video_model():
    """The embedded world's text-to-video model with random weights."""
    from assd.shapes import networks

    return random_model(networks.video_unet, num_frames=8)


@pytest.fixture(scope="session")
def tiny_image_model():
    """The embedded world's text-to-image model with random weights."""
    from assd.shapes import networks

    return random_model(networks.image_unet, num_frames=1)


def random_model(make_unet, num_frames):
    """Random weights, none of them zero: temporal layers would otherwise start as the identity."""
    from diffusers import DDPMScheduler

    from assd.models import LatentDiffusion
    from assd.shapes import networks

    torch.manual_seed(0)
    networks_by_name = dict(unet=make_unet(), vae=networks.autoencoder(), text_encoder=networks.text_encoder())
    for module in networks_by_name.values():
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return LatentDiffusion(
        **networks_by_name,
        tokenizer=networks.tokenizer(),
        scheduler=DDPMScheduler.from_config(networks.scheduler().config),
        height=64,
        width=64,
        num_frames=num_frames,
    )


@pytest.fixture
def fake_model():
    """Makes a `LatentDiffusion` of the given members alone: `fake_model(embed=..., predict_noise=...)`."""
    from assd.models import LatentDiffusion

    def make(**members):
        model = object.__new__(LatentDiffusion)
        vars(model).update(members)
        return model

    return make
