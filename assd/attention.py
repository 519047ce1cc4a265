"""Weighted attention fusion: the editing branch looks at the reference branch in the decoder's last self-attentions."""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from assd.errors import require

DECODER_SELF_ATTENTION = re.compile(r"up_blocks\.\d+\.attentions\.\d+\.transformer_blocks\.\d+\.attn1\.processor")


@dataclass(frozen=True)
class WeightedAttentionFusion:
    """A context manager over a video U-Net, `with fusion(unet): ...`, whose batch is (half, branch).

    lam     lambda, share of the reference attention, in [0, 1]; 0 is the unmodified network
    layers  k, how many of the decoder's spatial self-attentions are replaced, counted from the output

    Temporal attention (`temp_attentions`) and cross-attention are left alone, and so is the reference branch.
    """

    lam: float
    layers: int

    def __post_init__(self):
        require(0 <= self.lam <= 1, f"lam (lambda) must be in [0, 1], the paper has 0.8; got {self.lam}")
        require(self.layers >= 1, f"layers must be >= 1 (attention=none turns fusion off); got {self.layers}")

    @contextlib.contextmanager
    def __call__(self, unet: nn.Module) -> Iterator[None]:
        """Puts the fusion on the last `layers` layers; on exit, also after an error, the old processors are back."""
        original = unet.attn_processors
        names = [name for name in original if DECODER_SELF_ATTENTION.fullmatch(name)]
        require(
            self.layers <= len(names),
            f"layers must be at most {len(names)}, the number of spatial self-attentions in this U-Net's decoder; "
            f"got {self.layers}",
        )
        fused = {name: FusedAttention(self.lam, original[name]) for name in names[-self.layers :]}
        unet.set_attn_processor(original | fused)
        try:
            yield
        finally:
            unet.set_attn_processor(original)


@dataclass
class FusedAttention:
    """A diffusers attention processor around another one, which computes every attention here (fused kernel or not).

    The output projection is affine and the two weights sum to 1, so mixing after it is mixing before it.
    """

    lam: float
    attend: Callable[..., Tensor]

    def __call__(
        self, attn: Attention, hidden_states: Float[Tensor, "frames l d"], encoder_hidden_states: None = None, **kwargs
    ) -> Float[Tensor, "frames l d"]:
        """`frames` is (half, branch, n): for either half the editing branch, then the reference branch."""
        # SelfAttn = Softmax(Q K^T / sqrt(d)) V, Eq. 11, for both branches
        self_attention = self.attend(attn, hidden_states, **kwargs)
        # RefAttn = Softmax(Q K_ref^T / sqrt(d)) V_ref, Eq. 12, for the editing branch
        z, z_ref = split_branches(hidden_states)
        editing, reference = split_branches(self_attention)
        ref_attention = rearrange(
            self.attend(attn, z.flatten(0, 1), encoder_hidden_states=z_ref.flatten(0, 1), **kwargs),
            "(half n) l d -> half n l d",
            half=2,
        )
        # AttnFusion = (1 - lambda) SelfAttn + lambda RefAttn, Eq. 13
        fusion = torch.lerp(editing, ref_attention, self.lam)
        return rearrange([fusion, reference], "branch half n l d -> (half branch n) l d")


def split_branches(
    states: Float[Tensor, "frames l d"],
) -> tuple[Float[Tensor, "2 n l d"], Float[Tensor, "2 n l d"]]:
    """Editing and reference branch of a batch ordered (half, branch, n)."""
    editing, reference = rearrange(states, "(half branch n) l d -> branch half n l d", half=2, branch=2)
    return editing, reference
