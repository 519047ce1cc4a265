"""Which attention layers FateZero changes, and from which frames their keys and values come."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from diffusers import UNet2DConditionModel

from assd.diffusion.attention import Processor, layer
from assd.diffusion.frames import FrameTable, own_frame
from assd.diffusion.model import AttentionLayers
from assd.errors import require
from assd.methods.fatezero.maps import MappedAttention, Tap
from assd.methods.fatezero.masks import Grid

KeyFrames: TypeAlias = Sequence[int | str]


def frame_table(chosen: KeyFrames, frames: int) -> FrameTable:
    """From which frames the keys and values of each frame come, in this order.

    A number d is frame i + d of frame i, or the nearest that there is. `first`, `last` and `mid`, frame (f - 1) // 2,
    are the same of all frames. Nothing chosen is a frame's own. Raises InputError for another word.

    >>> frame_table([-1, "first"], 4)
    [[0, 0], [0, 0], [1, 0], [2, 0]]
    """
    named = {"first": 0, "mid": (frames - 1) // 2, "last": frames - 1}
    unknown = [word for word in chosen if isinstance(word, str) and word not in named]
    require(not unknown, f"kv_frames must be whole numbers or one of {', '.join(named)}; got {unknown}")
    if not chosen:
        return own_frame(frames)
    return [[named[d] if isinstance(d, str) else min(max(i + d, 0), frames - 1) for d in chosen] for i in range(frames)]


@dataclass(frozen=True)
class Layers:
    """The attention layers of an image U-Net on a video's latent, from the encoder to the decoder.

    A U-Net halves the latent's sides from level to level: level 0 has the latent's own.

    unet            the network
    names           of its attention layers
    kv_frames       of self-attention, see `frame_table`
    least_channels  self-attention of fewer channels sees its own frame only; None is no such limit
    max_side        of layers with more queries than the square of this, the maps are neither kept nor changed
    mask_level      masks come from the prompt's attention at this level; None is the last but one: of Stable
                    Diffusion's four levels the one with a quarter of the latent's sides, as published
    frames, height, width  of the latent

    Raises InputError where no layers are left.
    """

    unet: UNet2DConditionModel
    names: AttentionLayers
    kv_frames: KeyFrames
    least_channels: int | None
    max_side: int
    mask_level: int | None
    frames: int
    height: int
    width: int

    def __post_init__(self):
        require(
            bool(self.self_attention and self.cross_attention),
            f"FateZero exchanges the maps of self-attention and of attention to the prompt, and max_side = "
            f"{self.max_side} leaves {len(self.self_attention)} and {len(self.cross_attention)} layers of "
            f"{type(self.unet).__name__} on latents of {self.height} x {self.width}: raise it, or take another model",
        )
        levels = sorted({self.level(name) for name in self.cross_attention})
        require(
            bool(self.mask_layers),
            f"mask_level must be a level with attention to the prompt in layers of at most max_side² queries, "
            f"one of {levels}; got {self.mask_level}, where null is {self.last_but_one}",
        )

    @functools.cached_property
    def self_attention(self) -> tuple[str, ...]:
        """The layers whose maps pass the tap."""
        return self.small(self.names.self_attention)

    @functools.cached_property
    def cross_attention(self) -> tuple[str, ...]:
        """The same of attention to the prompt."""
        return self.small(self.names.cross_attention)

    @functools.cached_property
    def mask_layers(self) -> tuple[str, ...]:
        """Of attention to the prompt, those that masks come from."""
        level = self.last_but_one if self.mask_level is None else self.mask_level
        return tuple(name for name in self.cross_attention if self.level(name) == level)

    @property
    def last_but_one(self) -> int:
        """The published level of masks."""
        return max(len(self.unet.down_blocks) - 2, 0)

    @property
    def mapped(self) -> tuple[str, ...]:
        """All layers whose maps pass the tap."""
        return self.self_attention + self.cross_attention

    def small(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those with few enough queries."""
        return tuple(name for name in names if math.prod(self.grid(name)) <= self.max_side**2)

    def level(self, name: str) -> int:
        """Of a layer."""
        part, index = name.split(".")[:2]
        coarsest = len(self.unet.down_blocks) - 1
        if part == "down_blocks":
            return int(index)
        return coarsest - int(index) if part == "up_blocks" else coarsest

    def grid(self, name: str) -> Grid:
        """Rows and columns of a layer's queries."""
        scale = 2 ** self.level(name)
        return math.ceil(self.height / scale), math.ceil(self.width / scale)

    def chosen_frames(self, name: str) -> KeyFrames:
        """`kv_frames`, or none for a layer of too few channels."""
        channels = layer(self.unet, name).to_q.in_features
        return [] if self.least_channels is not None and channels < self.least_channels else self.kv_frames

    def processors(self, tap: Tap) -> dict[str, Processor]:
        """One a layer; those with few enough queries show their maps to the tap."""
        largest = self.max_side**2
        tables = {name: frame_table(self.chosen_frames(name), self.frames) for name in self.names.self_attention}
        tables |= dict.fromkeys(self.names.cross_attention)
        return {name: MappedAttention(name, tap, table, largest) for name, table in tables.items()}

    def nbytes(self, name: str, tokens: int) -> int:
        """Bytes of a layer's map of the whole video; `tokens` of a prompt."""
        queries = math.prod(self.grid(name))
        is_self = name in self.names.self_attention
        keys = queries * max(1, len(self.chosen_frames(name))) if is_self else tokens
        heads: int = layer(self.unet, name).heads  # type: ignore[assignment]
        return self.frames * heads * queries * keys * self.unet.dtype.itemsize
