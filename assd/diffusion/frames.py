"""Self-attention across the frames of a video, in a network that gets them as a batch in the order (b f).

Axes beside those of `assd`: m heads, k tokens that a query sees, e width of a head.
"""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from assd.errors import require

FrameTable: TypeAlias = Sequence[Sequence[int]]
"""One row a frame: the frames whose tokens its queries see, in the order in which they are joined."""


def own_frame(frames: int) -> FrameTable:
    """Every frame sees itself: an image network's self-attention."""
    return [[i] for i in range(frames)]


def first_and_previous(frames: int) -> FrameTable:
    """Sparse-causal attention (Tune-A-Video, arXiv 2212.11565): the first frame, then the one before.

    Frame 0 sees itself twice, and no other frame sees itself.

    >>> first_and_previous(4)
    [[0, 0], [0, 0], [0, 1], [0, 2]]
    """
    return [[0, max(i - 1, 0)] for i in range(frames)]


def all_frames(frames: int) -> FrameTable:
    """Dense attention: every frame sees all of them."""
    return [list(range(frames))] * frames


class FrameAttention:
    """An attention processor: the keys and values of each frame's queries come from chosen frames of its video.

    A batch holds one or more videos, each of as many frames as the table has rows.
    """

    def __init__(self, table: FrameTable):
        self.table = checked(table)

    def __call__(
        self, attn: Attention, hidden_states: Float[Tensor, "bf l d"], *_: object, **__: object
    ) -> Float[Tensor, "bf l d"]:
        """diffusers' protocol; a prompt or a mask is not looked at."""
        q, k, v = project(attn, hidden_states)
        return project_out(attn, attend_frames(q, k, v, self.table, attn.scale))


def checked(table: FrameTable) -> tuple[tuple[int, ...], ...]:
    """The table as tuples. Raises InputError unless all rows are equally long and name frames that there are."""
    rows = tuple(map(tuple, table))
    require(
        bool(rows) and len(set(map(len, rows))) == 1 and all(0 <= j < len(rows) for row in rows for j in row),
        f"a frame table needs one row a frame, all of one length, of frames 0..{len(rows) - 1}; got {rows}",
    )
    return rows


def attend_frames(
    q: Float[Tensor, "bf m l e"],
    k: Float[Tensor, "bf m l e"],
    v: Float[Tensor, "bf m l e"],
    table: FrameTable,
    scale: float,
) -> Float[Tensor, "bf m l e"]:
    """Attention of each frame's queries to the tokens of the frames in its row.

    Where all rows are equal, a video's queries attend together, and no key or value is held twice.
    """
    if any(row != table[0] for row in table):
        return attend(q, seen(k, table), seen(v, table), scale)
    f = len(table)
    queries = rearrange(q, "(b f) m l e -> b m (f l) e", f=f)
    keys, values = (rearrange(x, "(b f) m l e -> b f m l e", f=f)[:, list(table[0])] for x in (k, v))
    keys, values = (rearrange(x, "b k m l e -> b m (k l) e") for x in (keys, values))
    return rearrange(attend(queries, keys, values, scale), "b m (f l) e -> (b f) m l e", f=f)


def seen(tokens: Shaped[Tensor, "bf m l e"], table: FrameTable) -> Shaped[Tensor, "bf m k e"]:
    """Of each frame the tokens of the frames in its row, joined in the row's order."""
    per_video = rearrange(tokens, "(b f) m l e -> b f m l e", f=len(table))
    chosen = per_video[:, index(tuple(map(tuple, table)), tokens.device)]
    return rearrange(chosen, "b f k m l e -> (b f) m (k l) e")


@functools.lru_cache(maxsize=64)
def index(table: tuple[tuple[int, ...], ...], device: torch.device) -> Int[Tensor, "f k"]:
    """The table on a device, put there once."""
    return torch.tensor(table, device=device)


def project(
    attn: Attention, states: Float[Tensor, "bf l d"], context: Float[Tensor, "bf k c"] | None = None
) -> tuple[Float[Tensor, "bf m l e"], Float[Tensor, "bf m k e"], Float[Tensor, "bf m k e"]]:
    """Queries of the states, keys and values of the context, or of the states themselves; each apart by heads."""
    assert attn.to_k is not None and attn.to_v is not None
    context = states if context is None else context
    projected = (attn.to_q(states), attn.to_k(context), attn.to_v(context))
    q, k, v = (rearrange(x, "bf l (m e) -> bf m l e", m=attn.heads) for x in projected)
    return q, k, v


def attend(
    q: Float[Tensor, "b m l e"], k: Float[Tensor, "b m k e"], v: Float[Tensor, "b m k e"], scale: float
) -> Float[Tensor, "b m l e"]:
    """softmax(scale q k^T) v, without the map in memory."""
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def attention_map(q: Float[Tensor, "b m l e"], k: Float[Tensor, "b m k e"], scale: float) -> Float[Tensor, "b m l k"]:
    """softmax(scale q k^T), for who wants the map itself."""
    return (scale * q @ k.transpose(-1, -2)).softmax(-1)


def project_out(attn: Attention, attended: Float[Tensor, "bf m l e"]) -> Float[Tensor, "bf l d"]:
    """The heads joined, and the layer's output projection."""
    states = rearrange(attended, "bf m l e -> bf l (m e)")
    for module in attn.to_out or ():
        states = module(states)
    return states
