"""The pseudo-3-D network: an image U-Net whose convolutions and transformer blocks go on along time.

Behind every convolution of more than one pixel stands one along the frames, and behind every transformer block
attention over the frames. Where nothing was tuned both are the identity, and left out; GroupNorm over all frames of a
video stays. Parameters have their published names, behind the path of the layer or block that they follow:

    conv_temporal.weight, .bias               x -> W * x + b, of 3 frames
    conv_temporal.down.weight, .up.weight     x -> x + up * (down * x), of low rank (LoRA)
    attn_temporal..., norm_temporal...        see `assd.models.inflation.temporal_attention`
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from einops import rearrange
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from assd.diffusion.features import outputs_changed
from assd.errors import InputError, require
from assd.models.inflation import Weights, joint_group_norm, temporal_attention, weights_on

CONVOLUTION = ".conv_temporal."
LEAVES = ("weight", "bias", "down.weight", "up.weight")
SUFFIXES = ("temporal", "temp")  # of temporal attention, as FateZero and as Tune-A-Video name it


@contextlib.contextmanager
def video_network(unet: UNet2DConditionModel, frames: int, weights: Weights) -> Iterator[None]:
    """Within it the U-Net is a pseudo-3-D network with these weights: of its own layers, and of those along time.

    Temporal layers without weights are left out. On exit, also after an error, the U-Net is as before.
    """
    convolutions = {name: value for name, value in weights.items() if CONVOLUTION in name}
    others = {name: value for name, value in weights.items() if CONVOLUTION not in name}
    paths = dict.fromkeys(name.partition(CONVOLUTION)[0] for name in convolutions)

    def along_frames(path: str, x: Tensor) -> Tensor:
        return convolved(x, {leaf: convolutions.get(path + CONVOLUTION + leaf) for leaf in LEAVES}, frames)

    with contextlib.ExitStack() as stack:
        stack.enter_context(joint_group_norm(unet, frames))
        for suffix in SUFFIXES:
            if any(f".attn_{suffix}." in name for name in others):
                stack.enter_context(temporal_attention(unet, frames, suffix))
        stack.enter_context(weights_on(unet, others))
        stack.enter_context(outputs_changed(unet, paths, along_frames))
        yield


def convolved(x: Float[Tensor, "bf c h w"], weights: Mapping[str, Any], frames: int) -> Tensor:
    """A convolution along the frames of each pixel, of low rank or full; frames beyond the ends are zero."""
    series = rearrange(x, "(b f) c h w -> (b h w) c f", f=frames)
    if weights["weight"] is None:
        series = series + F.conv1d(F.conv1d(series, weights["down.weight"], padding=1), weights["up.weight"], padding=1)
    else:
        series = F.conv1d(series, weights["weight"], weights["bias"], padding=1)
    return rearrange(series, "(b h w) c f -> (b f) c h w", h=x.shape[2], w=x.shape[3])


def temporal_convolutions(unet: UNet2DConditionModel, rank: int | None) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the parameters along time behind every convolution of more than one pixel.

    rank  of the low-rank variant, half the channels where there are fewer than that; None is the full convolution
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path, layer in unet.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            c, name = layer.out_channels, path + CONVOLUTION
            if rank is None:
                shapes |= {f"{name}weight": (c, c, 3), f"{name}bias": (c,)}
            else:
                r = rank if rank <= c else c // 2
                shapes |= {f"{name}down.weight": (r, c, 3), f"{name}up.weight": (c, r, 3)}
    return shapes


def read_weights(path: Path, unet: UNet2DConditionModel) -> Weights:
    """Tuned weights from a safetensors file: some of the network's own, and those of temporal layers.

    Raises InputError for a file that cannot be read, and for weights that do not fit the network.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"tuned_weights: {path} is not a safetensors file that can be read ({error})") from None
    own, layers = dict(unet.named_parameters()), dict(unet.named_modules())
    strange = [
        name
        for name, value in tensors.items()
        if (own[name].shape != value.shape if name in own else temporal_home(name) not in layers)
    ]
    require(
        not strange,
        f"tuned_weights: {path} has weights that fit no layer of this {type(unet).__name__}, such as {strange[:3]}",
    )
    return in_place_of(tensors, unet)


def in_place_of(tensors: Mapping[str, Tensor], unet: UNet2DConditionModel) -> Weights:
    """Frozen weights in the precision of the network, where it is."""
    device = next(unet.parameters()).device
    return {name: nn.Parameter(value.to(device, unet.dtype), requires_grad=False) for name, value in tensors.items()}


def temporal_home(name: str) -> str | None:
    """The layer or block that a temporal layer's parameter follows; None for another parameter."""
    marks = [CONVOLUTION, *(f".{kind}_{suffix}." for kind in ("attn", "norm") for suffix in SUFFIXES)]
    return next((name.partition(mark)[0] for mark in marks if mark in name), None)
