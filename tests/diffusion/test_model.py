"""The contract of a model: latent spaces, whom it fits, and its named layers."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from assd.diffusion.attention import processors_on
from assd.diffusion.model import LatentSpace, Model, check_shares_latents
from assd.diffusion.schedule import Schedule
from assd.errors import InputError
from tests.fakes import FakeModel, schedule

RAW = torch.randn((3, 5, 4, 4), generator=torch.Generator().manual_seed(0))


def test_fakes_and_networks_are_models(tiny_video_model, tiny_image_model):
    """What the tests pretend with has all that the contract names, and so have the diffusers models."""
    assert isinstance(FakeModel(), Model)
    assert isinstance(tiny_video_model, Model)
    assert isinstance(tiny_image_model, Model)
    assert not isinstance(nn.Identity(), Model)


@pytest.mark.parametrize("scale", [0.18215, (2.0, 0.5, 1.0)])
@pytest.mark.parametrize("shift", [0.0, 0.7, (0.1, -3.0, 0.0)])
def test_latents_come_back(scale, shift):
    """Normalised and restored is what it was, by one number or by one a channel."""
    space = LatentSpace(3, scale, shift)
    torch.testing.assert_close(space.restored(space.normalised(RAW)), RAW)


def test_statistics_belong_to_their_channels():
    """Z = (raw - shift) scale, each channel by its own numbers and no other axis mixed in."""
    Z = LatentSpace(3, (2.0, 0.5, 1.0), (0.1, -3.0, 0.0)).normalised(RAW)
    for channel, (scale, shift) in enumerate([(2.0, 0.1), (0.5, -3.0), (1.0, 0.0)]):
        torch.testing.assert_close(Z[channel], (RAW[channel] - shift) * scale)


def test_one_scale_alone_multiplies():
    """Stable Diffusion's scaling factor multiplies when encoded, bit for bit: no shift of zero is added."""
    assert torch.equal(LatentSpace(3, 0.18215).normalised(RAW), RAW * 0.18215)


def test_models_that_share_latents():
    """The same channels, statistics and schedule pass; the networks may differ."""
    check_shares_latents(FakeModel(), FakeModel(network=nn.Linear(1, 1), canvas=None))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (dict(latents=LatentSpace(16)), "4 and 16 channels"),
        (dict(latents=LatentSpace(4, 0.5)), "scaling factors are 1.0 and 0.5"),
        (dict(latents=LatentSpace(4, 1.0, 0.1)), "shifts 0.0 and 0.1"),
        (dict(schedule=schedule(last=0.1)), "one noise schedule"),
        (dict(schedule=Schedule.flow()), "one noise schedule"),
    ],
)
def test_models_that_do_not_share_latents(other, said):
    """Whatever would make one gradient of two models meaningless is refused, and the message says what differs."""
    with pytest.raises(InputError, match=said):
        check_shares_latents(FakeModel(), FakeModel(**other))


def test_named_layers_are_the_networks(tiny_video_model, tiny_image_model):
    """Every kind is there, in the order in which the network runs; together they are all its attentions, none twice."""
    for model, temporal in ((tiny_video_model, True), (tiny_image_model, False)):
        layers, network = model.layers, model.network
        named = [*layers.self_attention, *layers.cross_attention, *layers.temporal_attention]
        assert sorted(f"{name}.processor" for name in named) == sorted(network.attn_processors)
        assert bool(layers.temporal_attention) == temporal
        assert {name.split(".")[0] for name in layers.self_attention} == {"down_blocks", "mid_block", "up_blocks"}
        assert layers.decoder_self_attention == layers.self_attention[-len(layers.decoder_self_attention) :]
        assert ran(network, layers.self_attention, model) == list(layers.self_attention)


def ran(network, names, model):
    """The layers among these in the order in which one pass runs them."""
    order = []
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: order.append(name)) for name in names
    ]
    model.predict(torch.zeros(1, 6, 2, 16, 16), 500, model.embed(("",)))
    for hook in hooks:
        hook.remove()
    return order


def test_processors_are_put_on_layers_and_off_again(tiny_image_model):
    """Within the context the named layers have the given processors; after it, and after an error, their own."""
    network, (first, second, *_) = tiny_image_model.network, tiny_image_model.layers.cross_attention
    before, mine = dict(network.attn_processors), AttnProcessor()
    with pytest.raises(KeyboardInterrupt), processors_on(network, {first: mine}):
        assert network.get_submodule(first).processor is mine
        assert network.get_submodule(second).processor is before[f"{second}.processor"]
        raise KeyboardInterrupt
    assert all(network.attn_processors[name] is processor for name, processor in before.items())


@pytest.mark.parametrize("name", ["up_blocks.9.attn1", "conv_in"])
def test_a_layer_that_is_not_there_is_refused(tiny_image_model, name):
    """By its name; what is no attention too."""
    network = tiny_image_model.network
    before = dict(network.attn_processors)
    with pytest.raises(InputError, match=name), processors_on(network, {name: AttnProcessor()}):
        pass
    assert network.attn_processors == before
