"""FLATTEN's self-attention: among all tokens of a video, then along trajectories.

Axes beside those of `assd`: m heads, p tokens of all frames in the order (f h w), e width of a head.
"""

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from assd.diffusion.frames import attend, project, project_out
from assd.diffusion.trajectories import Trajectories
from assd.errors import require


class FlowGuidedAttention:
    """An attention processor for a batch in the order (b f): dense attention, then attention along trajectories.

        H    = softmax(Q K^T / sqrt(e)) V
        H_p <- sum over s of softmax_s(q_p . k_s / sqrt(e)) H_s,  s the token p and the others on its trajectory

    with q = k = H, or with `old_qk` q, k = Q, K. Without trajectories it ends at the first line.

    chunk  queries of the first line that attend at once; None is all
    """

    def __init__(self, frames: int, along: Trajectories | None, old_qk: bool, chunk: int | None):
        self.frames, self.along, self.old_qk, self.chunk = frames, along, old_qk, chunk

    def __call__(
        self, attn: Attention, hidden_states: Float[Tensor, "bf l d"], *_: object, **__: object
    ) -> Float[Tensor, "bf l d"]:
        """diffusers' protocol; a prompt or a mask is not looked at."""
        heads = project(attn, hidden_states)
        q, k, v = (rearrange(x, "(b f) m l e -> b m (f l) e", f=self.frames) for x in heads)
        chunks = q.split(self.chunk or q.shape[2], dim=2)
        H = torch.cat([attend(queries, k, v, attn.scale) for queries in chunks], dim=2)
        if self.along is not None:
            q, k = (q, k) if self.old_qk else (H, H)
            H = attend_along(self.along, q, k, H, attn.scale)
        return project_out(attn, rearrange(H, "b m (f l) e -> (b f) m l e", f=self.frames))


def attend_along(
    along: Trajectories,
    q: Float[Tensor, "b m p e"],
    k: Float[Tensor, "b m p e"],
    v: Float[Tensor, "b m p e"],
    scale: float,
) -> Float[Tensor, "b m p e"]:
    """Attention of each token to those on its trajectory. The keys and values of one slot are held at once.

    Raises InputError unless there is a trajectory for every token.
    """
    tokens, cells = q.shape[2], len(along.cells)
    require(
        tokens == cells,
        f"flow_layers must be self-attention of the finest level, with {cells} tokens in all frames; one has {tokens}",
    )
    slots = along.cells.unbind(1)
    scores = torch.stack([(q * k.index_select(2, slot)).sum(-1) for slot in slots], dim=-1)
    weights = (scale * scores).masked_fill(~along.here, -torch.inf).softmax(-1)
    mixed = torch.zeros_like(v)
    for weight, slot in zip(weights.unbind(-1), slots):
        mixed += weight[..., None] * v.index_select(2, slot)
    return mixed
