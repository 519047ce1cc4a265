"""Which layers of an image U-Net FLATTEN touches: the published rule, for a network of any depth."""

import itertools

from diffusers import UNet2DConditionModel

from assd.diffusion.model import AttentionLayers
from assd.errors import require
from assd.models.unet import convolution_before


def finest_self_attention(unet: UNet2DConditionModel, layers: AttentionLayers) -> tuple[str, ...]:
    """Self-attention at the latent's own size: in the encoder's first block and the decoder's last.

    Of Stable Diffusion the two of down_blocks.0 and the three of up_blocks.3. Raises InputError where there is none.
    """
    ends = ("down_blocks.0.", f"up_blocks.{len(unet.up_blocks) - 1}.")
    finest = tuple(name for name in layers.self_attention if name.startswith(ends))
    require(bool(finest), "FLATTEN needs self-attention at the latent's own size, and this network has none there")
    return finest


def injected_attention(layers: AttentionLayers) -> tuple[str, ...]:
    """The decoder's self-attention from the second layer on, and no further than the first of the finest level.

    Of Stable Diffusion attentions.1 and 2 of up_blocks.1, all of up_blocks.2, and attentions.0 of up_blocks.3.
    """
    *coarser, finest = levels(layers)
    return (*itertools.chain(*coarser), finest[0])[1:]


def injected_convolutions(layers: AttentionLayers) -> tuple[str, ...]:
    """The last convolution of the ResNet blocks before three of the decoder's self-attention layers.

    Two are the first of the coarsest level, one is the first of the next level. Of Stable Diffusion they are in
    resnets.0 and 1 of up_blocks.1 and in resnets.0 of up_blocks.2.
    """
    coarsest, finer = levels(layers)[:2]
    return tuple(convolution_before(name) for name in (*coarsest[:2], finer[0]))


def levels(layers: AttentionLayers) -> list[list[str]]:
    """The decoder's self-attention by its blocks, coarsest first. Raises InputError for fewer than two levels."""
    blocks = [list(names) for _, names in itertools.groupby(layers.decoder_self_attention, key=block)]
    require(len(blocks) >= 2, f"FLATTEN needs two levels of the decoder with self-attention; there are {len(blocks)}")
    return blocks


def block(name: str) -> str:
    """The first two parts of a layer's path: `up_blocks.1`."""
    return ".".join(name.split(".")[:2])
