"""Where a word is: masks from cross-attention maps, and blending by them (FateZero, Eqs. 7 and 8).

Axes beside those of `assd`: m heads, q queries.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from assd.methods.fatezero.alignment import Positions

Grid = tuple[int, int]  # rows and columns of a layer's queries


def word_map(maps: Sequence[Float[Tensor, "f m q l"]], positions: Positions, grid: Grid) -> Float[Tensor, "f h w"]:
    """How much each pixel attends to some tokens: their sum, averaged over heads and layers of one grid."""
    of_layers = torch.stack([layer[..., list(positions)].float().sum(-1).mean(1) for layer in maps])
    return rearrange(of_layers.mean(0), "f (h w) -> f h w", h=grid[0])


def pooled(words: Float[Tensor, "f h w"]) -> Float[Tensor, "f h w"]:
    """The largest value of each 3 x 3 neighbourhood."""
    return F.max_pool2d(words, 3, stride=1, padding=1)


def mask(words: Float[Tensor, "f h w"], grid: Grid, threshold: float) -> Bool[Tensor, "f H W"]:
    """Where the pooled map, on another grid, is above a share of each frame's largest value.

    A threshold of 1 or more masks nothing.
    """
    resized = F.interpolate(pooled(words)[None], size=grid)[0]
    return resized / resized.amax((-2, -1), keepdim=True) > threshold


def blend(
    inside: Float[Tensor, "*shape"], outside: Float[Tensor, "*shape"], M: Bool[Tensor, "..."]
) -> Float[Tensor, "*shape"]:
    """M inside + (1 - M) outside."""
    return torch.where(M, inside, outside)
