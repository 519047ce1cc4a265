"""Weighted attention fusion: the editing branch looks at the reference branch in the decoder's last self-attentions."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from assd.diffusion.attention import layer, processors_on
from assd.diffusion.model import Model
from assd.errors import require


@dataclass(frozen=True)
class WeightedAttentionFusion:
    """A context manager over a video model, `with fusion(model, branches): ...`, whose batch is (half, branch).

    The last branch is the reference; those before it, one or more, are edits.

    lam     lambda, share of the reference attention, in [0, 1]; 0 is the unmodified network
    layers  k, how many of the decoder's spatial self-attentions are replaced, counted from the output

    Temporal attention and cross-attention are left alone, and so is the reference branch.
    """

    lam: float
    layers: int

    def __post_init__(self):
        require(0 <= self.lam <= 1, f"lam (lambda) must be in [0, 1], the paper has 0.8; got {self.lam}")
        require(self.layers >= 1, f"layers must be >= 1 (attention=none turns fusion off); got {self.layers}")

    @contextlib.contextmanager
    def __call__(self, model: Model, branches: int) -> Iterator[None]:
        """Puts the fusion on the last `layers` layers; on exit, also after an error, the old processors are back."""
        names = model.layers.decoder_self_attention
        require(
            self.layers <= len(names),
            f"layers must be at most {len(names)}, the number of spatial self-attentions in this U-Net's decoder; "
            f"got {self.layers}",
        )
        fused = {
            name: fused_attention(self.lam, branches, layer(model.network, name).processor)
            for name in names[-self.layers :]
        }
        with processors_on(model.network, fused):
            yield


@dataclass(eq=False)
class FusedAttention:
    """A diffusers attention processor around another one, which computes every attention here (fused kernel or not).

    The output projection is affine and the two weights sum to 1, so mixing after it is mixing before it.
    """

    lam: float
    branches: int
    attend: Callable[..., Tensor]

    def __call__(
        self, attn: Attention, hidden_states: Float[Tensor, "frames l d"], encoder_hidden_states: None = None, **kwargs
    ) -> Float[Tensor, "frames l d"]:
        """`frames` is (half, branch, n): for either half the editing branches, then the reference branch."""
        # SelfAttn = Softmax(Q K^T / sqrt(d)) V, Eq. 11, for all branches
        self_attention = self.attend(attn, hidden_states, **kwargs)
        # RefAttn = Softmax(Q K_ref^T / sqrt(d)) V_ref, Eq. 12, for the editing branches: of one frame all their queries
        # at once, which share its K_ref and V_ref
        z, z_ref = self.split(hidden_states)
        editing, reference = self.split(self_attention)
        queries = rearrange(z, "half edit n l d -> (half n) (edit l) d")
        keys = rearrange(z_ref, "half 1 n l d -> (half n) l d")
        ref_attention = rearrange(
            self.attend(attn, queries, encoder_hidden_states=keys, **kwargs),
            "(half n) (edit l) d -> half edit n l d",
            half=2,
            edit=self.branches - 1,
        )
        # AttnFusion = (1 - lambda) SelfAttn + lambda RefAttn, Eq. 13
        fusion = torch.lerp(editing, ref_attention, self.lam)
        return rearrange(torch.cat([fusion, reference], dim=1), "half branch n l d -> (half branch n) l d")

    def split(
        self, states: Float[Tensor, "frames l d"]
    ) -> tuple[Float[Tensor, "2 edits n l d"], Float[Tensor, "2 1 n l d"]]:
        """Editing branches and reference branch of a batch ordered (half, branch, n)."""
        by_branch = rearrange(states, "(half branch n) l d -> half branch n l d", half=2, branch=self.branches)
        return by_branch[:, :-1], by_branch[:, -1:]


fused_attention = functools.cache(FusedAttention)  # one object for one layer: torch.compile compiles for objects


@contextlib.contextmanager
def unmodified(model: Model, branches: int) -> Iterator[None]:
    """No fusion: each branch sees itself alone."""
    yield
