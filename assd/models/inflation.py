"""An image U-Net on a video: what makes of the frames in its batch, in the order (b f), one video.

Three contexts, each of which leaves the network as it was: `joint_group_norm`, `temporal_attention`, and `weights_on`,
which lends a network weights of one's own.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from assd.diffusion.draw import generator
from assd.diffusion.model import Model
from assd.errors import InputError, require

Weights: TypeAlias = dict[str, nn.Parameter]  # by name in the network
TEMPORAL = "temp"  # attn_temp and norm_temp, as Tune-A-Video names them


def image_unet(model: Model, method: str) -> UNet2DConditionModel:
    """The model's network, of which a method knows the layers. Raises InputError unless it is an image U-Net."""
    if isinstance(model.network, UNet2DConditionModel):
        return model.network
    raise InputError(
        f"{method} edits with a text-to-image U-Net, UNet2DConditionModel; model has a "
        f"{type(model.network).__name__}. Choose an image model, such as model=${{image_model}}"
    )


@contextlib.contextmanager
def joint_group_norm(network: nn.Module, frames: int) -> Iterator[None]:
    """Within it the ResNet blocks' GroupNorms and the last one take their statistics over all frames of a video.

    So does a published network that was inflated to (b, c, f, h, w); the GroupNorm at the head of a transformer stays
    per frame there. On exit, also after an error, all is as before; contexts may be nested, and the innermost number
    of frames counts.
    """
    norms = resnet_norms(network)
    before = [vars(norm).get("forward") for norm in norms]
    try:
        for norm in norms:
            norm.forward = functools.partial(pooled_group_norm, norm, frames)
        yield
    finally:
        for norm, forward in zip(norms, before):
            del norm.forward
            if forward is not None:
                norm.forward = forward


def resnet_norms(network: nn.Module) -> list[nn.GroupNorm]:
    """norm1 and norm2 of every ResNet block, and conv_norm_out where there is one."""
    blocks = [module for module in network.modules() if isinstance(module, ResnetBlock2D)]
    require(bool(blocks), f"{type(network).__name__} has no ResNet blocks whose frames could be normalised together")
    last = getattr(network, "conv_norm_out", None)
    return [norm for block in blocks for norm in (block.norm1, block.norm2)] + ([last] if last is not None else [])


def pooled_group_norm(norm: nn.GroupNorm, frames: int, x: Float[Tensor, "bf c h w"]) -> Float[Tensor, "bf c h w"]:
    """Group normalisation with mean and variance over the group's channels, f, h and w of each video."""
    video = rearrange(x, "(b f) c h w -> b c f h w", f=frames)
    return rearrange(F.group_norm(video, norm.num_groups, norm.weight, norm.bias, norm.eps), "b c f h w -> (b f) c h w")


@contextlib.contextmanager
def temporal_attention(network: nn.Module, frames: int, suffix: str = TEMPORAL) -> Iterator[None]:
    """Within it every transformer block ends with attention over time: x + attn(norm(x)), whose tokens are the frames.

    Each frame sees all of them, at its own place in the picture; nothing says which frame is which. Block B gets the
    modules `B.norm_<suffix>` and `B.attn_<suffix>`, without values: those are for `weights_on` within. On exit, also
    after an error, they are gone.
    """
    with contextlib.ExitStack() as stack:
        for block in transformer_blocks(network).values():
            norm, attn = temporal_layers(block)
            for name, module in ((f"norm_{suffix}", norm), (f"attn_{suffix}", attn)):
                block.add_module(name, module)
                stack.callback(delattr, block, name)
            stack.enter_context(block.register_forward_hook(functools.partial(along_time, norm, attn, frames)))
        yield


def along_time(
    norm: nn.LayerNorm,
    attn: Attention,
    frames: int,
    block: nn.Module,
    inputs: tuple,
    x: Float[Tensor, "bf l d"],
) -> Float[Tensor, "bf l d"]:
    """A hook on a transformer block: x + attn(norm(x)) over the frames."""
    per_place = rearrange(x, "(b f) l d -> (b l) f d", f=frames)
    return x + rearrange(attn(norm(per_place)), "(b l) f d -> (b f) l d", l=x.shape[1])


def transformer_blocks(network: nn.Module) -> dict[str, BasicTransformerBlock]:
    """A network's transformer blocks by their paths. Raises InputError where there are none."""
    blocks = {path: block for path, block in network.named_modules() if isinstance(block, BasicTransformerBlock)}
    require(bool(blocks), f"{type(network).__name__} has no transformer blocks to which time could be added")
    return blocks


def temporal_layers(block: BasicTransformerBlock) -> tuple[nn.LayerNorm, Attention]:
    """A norm and an attention of the size of a block's self-attention, without memory for their values."""
    width, heads = block.attn1.to_q.in_features, block.attn1.heads
    with torch.device("meta"):
        return nn.LayerNorm(width), Attention(width, heads=heads, dim_head=width // heads)


def temporal_weights(network: nn.Module, key: tuple[object, ...], random_bias: bool, suffix: str = TEMPORAL) -> Weights:
    """First values of the layers that `temporal_attention` adds, in float32, frozen, depending on nothing but the key.

    The output weight is 0, so that a block adds nothing but the output bias: uniform within 1 / sqrt(c) with
    `random_bias`, as published, else 0, and an untuned network computes what it did before.
    """
    device, weights = next(network.parameters()).device, {}
    for path, block in transformer_blocks(network).items():
        norm, attn = temporal_layers(block)
        weights[f"{path}.norm_{suffix}.weight"] = torch.ones(norm.weight.shape)
        weights[f"{path}.norm_{suffix}.bias"] = torch.zeros(norm.bias.shape)
        for leaf, like in attn.named_parameters():
            name = f"{path}.attn_{suffix}.{leaf}"
            is_zero = leaf == "to_out.0.weight" or (leaf == "to_out.0.bias" and not random_bias)
            weights[name] = torch.zeros(like.shape) if is_zero else linear_start(like, (*key, name))
    return {name: nn.Parameter(value.to(device), requires_grad=False) for name, value in weights.items()}


def linear_start(like: Float[Tensor, "... c"], key: tuple[object, ...]) -> Float[Tensor, "... c"]:
    """torch's own start of a linear layer from c to c, for weight and bias: uniform within 1 / sqrt(c)."""
    return like.shape[-1] ** -0.5 * (2 * torch.rand(like.shape, generator=generator(*key)) - 1)


@contextlib.contextmanager
def weights_on(network: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Within it the network computes with these weights; on exit, also after an error, its own are back untouched."""
    own = {name: network.get_parameter(name) for name in weights}
    try:
        put(network, weights)
        yield
    finally:
        put(network, own)


def put(network: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Makes these the network's parameters, themselves and not copies."""
    for name, parameter in weights.items():
        module, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(module), leaf, parameter)
