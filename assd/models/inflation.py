"""An image U-Net on a video: what it takes to treat the frames in its batch as one."""

import contextlib
import functools
from collections.abc import Iterator

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from assd.diffusion.model import Model
from assd.errors import InputError, require


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
    per frame there. The network gets its frames as a batch in the order (b f). On exit, also after an error, all is
    as before; contexts may be nested, and the innermost number of frames counts.
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
