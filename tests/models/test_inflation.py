"""An image U-Net sees time, and is itself again afterwards."""

import pytest
import torch
from torch import nn

from assd.errors import InputError
from assd.models.inflation import joint_group_norm, temporal_attention, temporal_weights, weights_on
from tests.parity.network import tiny_unet, weight

FRAMES = 3
SMALL = dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(32, 32),
    layers_per_block=1,
)


@pytest.fixture(scope="module")
def unet():
    return tiny_unet(1, **SMALL)


@pytest.fixture(scope="module")
def predict():
    """One pass over two videos; `order` of the frames within each."""
    torch.manual_seed(0)
    videos, text = torch.randn(2, FRAMES, 4, 8, 8), torch.randn(1, 5, 32).expand(2 * FRAMES, -1, -1)

    @torch.no_grad()
    def predict(unet, order=slice(None)):
        return unet(videos[:, order].flatten(0, 1), 500, text).sample.unflatten(0, (2, FRAMES))

    return predict


def random_weights(unet):
    return {name: nn.Parameter(weight(name, w.shape, 1)) for name, w in temporal_weights(unet, (0,), True).items()}


def test_joint_group_norm_is_group_norm_of_the_video(unet):
    norm = unet.down_blocks[0].resnets[0].norm1
    x = torch.randn(2 * FRAMES, 32, 4, 4)
    as_video = norm(x.unflatten(0, (2, FRAMES)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    with joint_group_norm(unet, FRAMES):
        torch.testing.assert_close(norm(x), as_video)
        with joint_group_norm(unet, 1):
            per_frame = norm(x)
        torch.testing.assert_close(norm(x), as_video)
    assert torch.equal(per_frame, norm(x))
    assert not torch.allclose(per_frame, as_video)


def test_fresh_temporal_attention_without_bias_changes_nothing(unet, predict):
    with temporal_attention(unet, FRAMES), weights_on(unet, temporal_weights(unet, (0,), random_bias=False)):
        inflated = predict(unet)
    assert torch.equal(inflated, predict(unet))


def test_temporal_attention_has_no_sense_of_order(unet, predict):
    with temporal_attention(unet, FRAMES), weights_on(unet, random_weights(unet)):
        forwards, backwards = predict(unet), predict(unet, [2, 1, 0])
    torch.testing.assert_close(backwards.flip(1), forwards, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(forwards, predict(unet), atol=0.1)


def test_first_weights_depend_on_the_key_and_random_biases_are_within_torchs_bound(unet):
    def output_bias(*key):
        weights = temporal_weights(unet, key, random_bias=True)
        return next(w for name, w in weights.items() if name.endswith("attn_temp.to_out.0.bias"))

    assert torch.equal(output_bias(1, "a"), output_bias(1, "a"))
    assert not torch.equal(output_bias(1, "a"), output_bias(1, "b"))
    assert 0.7 * 32**-0.5 < output_bias(1, "a").abs().max() <= 32**-0.5


def test_after_an_error_the_network_is_as_before(unet, predict):
    before, parameters = predict(unet), dict(unet.named_parameters())
    query = next(name for name in parameters if name.endswith("attn1.to_q.weight"))
    mine = {query: nn.Parameter(torch.zeros_like(parameters[query]))} | random_weights(unet)
    inflated = temporal_attention(unet, FRAMES), weights_on(unet, mine), joint_group_norm(unet, FRAMES)
    with pytest.raises(ZeroDivisionError), inflated[0], inflated[1], inflated[2]:
        assert unet.get_parameter(query) is mine[query]
        raise ZeroDivisionError
    assert all(parameter is parameters[name] for name, parameter in unet.named_parameters())
    assert len(dict(unet.named_parameters())) == len(parameters)
    assert torch.equal(predict(unet), before)


def test_a_network_without_blocks_is_refused():
    with pytest.raises(InputError, match="no transformer blocks"), temporal_attention(nn.Linear(1, 1), FRAMES):
        pass
    with pytest.raises(InputError, match="no ResNet blocks"), joint_group_norm(nn.Linear(1, 1), FRAMES):
        pass
