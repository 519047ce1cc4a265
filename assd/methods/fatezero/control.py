"""What one edit does to the attention maps of its conditional half, and to its latent (FateZero, section 3).

S is a map of the source video, from the inversion step to the same timestep; E the edit's own. Axes beside those of
`assd`: m heads, q queries, k keys, r and s rows and columns of the layers that masks come from.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from assd.methods.fatezero.alignment import Alignment, Positions
from assd.methods.fatezero.layers import Layers
from assd.methods.fatezero.maps import Map, Source
from assd.methods.fatezero.masks import Grid, blend, mask, word_map

LATENTS_BLENDED = (0.2, 0.8)  # shares of the sampling steps between which latents are blended


@dataclass(frozen=True)
class Control:
    """What one edit does, step by step.

    alignment      from whose columns the maps of the target prompt's tokens come
    equalizer      what the aligned columns are multiplied by
    cross_shares   alpha: in which steps, 0 the noisiest, a column is aligned
    self_steps     in which steps self-attention is the source video's
    gone, new      tokens of the source prompt and of the target prompt that masks are made of
    threshold      of a mask, a share of the largest value
    blend_self_attention  whether self-attention stays the edit's own within the mask of the words that are gone
    blended_after  after how many steps the latent outside both masks becomes the source video's
    """

    alignment: Alignment
    equalizer: Float[Tensor, " l"]
    cross_shares: Float[Tensor, "i l"]
    self_steps: range
    gone: Positions
    new: Positions
    threshold: float
    blend_self_attention: bool
    blended_after: range

    def needs_mask(self, step: int) -> bool:
        """Whether a step needs the mask of the words that are gone."""
        return step + 1 in self.blended_after or (self.blend_self_attention and step in self.self_steps)

    def needs(self, step: int, name: str, layers: Layers) -> bool:
        """Whether a step needs the source video's map of a layer."""
        if name in layers.self_attention:
            return step in self.self_steps
        return bool(self.cross_shares[step].any()) or (self.needs_mask(step) and name in layers.mask_layers)

    def cross(self, step: int, S: Float[Tensor, "f m q l"], E: Float[Tensor, "f m q l"]) -> Float[Tensor, "f m q l"]:
        """alpha c C + (1 - alpha) E, with the equaliser c."""
        alpha = self.cross_shares[step].to(E)
        return alpha * self.alignment(S, E) * self.equalizer.to(E) + (1 - alpha) * E


def blended_steps(num_steps: int) -> range:
    """After how many of the sampling steps latents are blended: int(0.2 N) < c < int(0.8 N).

    >>> list(blended_steps(10))
    [3, 4, 5, 6, 7]
    """
    begin, end = LATENTS_BLENDED
    return range(int(begin * num_steps) + 1, int(end * num_steps))


class ControlledStep:
    """One sampling step of one edit; `tap.through` takes it as it is.

    control  the edit's
    step     0 the noisiest
    layers   of the network
    source   the source video's maps at this timestep
    """

    def __init__(self, control: Control, step: int, layers: Layers, source: Source):
        self.control, self.step, self.layers, self.source = control, step, layers, source
        self.masking: list[Map] = []  # the edit's own maps of the new words, in the layers that masks come from
        self.masks: dict[Grid, Tensor] = {}

    def __call__(self, name: str, maps: Map) -> Map:
        """Changes the maps of the conditional half, which stand last, in place."""
        E = maps[-self.layers.frames :]
        if self.control.blended_after and name in self.layers.mask_layers:
            self.masking.append(E[..., list(self.control.new)].clone())
        if name in self.layers.self_attention:
            if self.step in self.control.self_steps:
                E.copy_(self.self_attention(name, E))
        elif self.control.cross_shares[self.step].any():
            E.copy_(self.control.cross(self.step, self.source(name), E))
        return maps

    def self_attention(self, name: str, E: Float[Tensor, "f m q k"]) -> Float[Tensor, "f m q k"]:
        """S, or M E + (1 - M) S with a mask over the queries (Eq. 8)."""
        S = self.source(name)
        if not (self.control.blend_self_attention and self.control.gone):
            return S
        return blend(E, S, rearrange(self.source_mask(self.layers.grid(name)), "f h w -> f 1 (h w) 1"))

    @functools.cached_property
    def source_words(self) -> Float[Tensor, "f r s"]:
        """Where the source video attends to the words that are gone."""
        return self.attended([self.source(name) for name in self.layers.mask_layers], self.control.gone)

    @property
    def target_words(self) -> Float[Tensor, "f r s"]:
        """Where the edit, before its maps were changed, attended to the new words."""
        return self.attended(self.masking, tuple(range(len(self.control.new))))

    def attended(self, maps: Sequence[Map], positions: Positions) -> Float[Tensor, "f r s"]:
        """A word map on the grid of the layers that masks come from."""
        return word_map(maps, positions, self.layers.grid(self.layers.mask_layers[0]))

    def source_mask(self, grid: Grid) -> Bool[Tensor, "f h w"]:
        """The mask of the words that are gone."""
        if grid not in self.masks:
            self.masks[grid] = mask(self.source_words, grid, self.control.threshold)
        return self.masks[grid]

    def blended(
        self,
        z: Float[Tensor, "b c f h w"],
        z_inv: Float[Tensor, "b c f h w"],
        target_words: Float[Tensor, "f r s"],
    ) -> Float[Tensor, "b c f h w"]:
        """The latent after the step, z_inv outside the masks of the words that are gone and of the new ones (Eq. 7).

        target_words  where the edit attended to the new words, summed over the steps up to this one
        """
        if self.step + 1 not in self.control.blended_after:
            return z
        return blend(z, z_inv, self.latent_mask(target_words))

    def latent_mask(self, target_words: Float[Tensor, "f r s"]) -> Bool[Tensor, "f h w"]:
        """The union of both masks, on the latent's grid."""
        grid = (self.layers.height, self.layers.width)
        return self.source_mask(grid) | mask(target_words, grid, self.control.threshold)
