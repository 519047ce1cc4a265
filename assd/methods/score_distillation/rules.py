"""The score rules, side by side: what the gradient on Z is, given the predicted noises.

    e    editing branch,   eps_theta^w(Z_t, t, y*)       r    reference branch, eps_theta^w(Z_ref_t, t, y)
    eps  the noise that both branches were given

Several edits of one video may stand on a leading axis b of e; they share r and eps.

The video's latent is itself what is optimised (phi = Z, so dZ/dphi = 1) and no gradient flows through the network:
the difference of predictions *is* the gradient.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assd.errors import require


class Score(NamedTuple):
    """A gradient on Z, and where a rule has one the mask of the elements whose reference it smoothed."""

    gradient: Float[Tensor, "*b c f h w"]
    mask: Bool[Tensor, "*b c f h w"] | None = None


@runtime_checkable
class ScoreRule(Protocol):
    """A pure function of predicted noises."""

    def __call__(
        self, e: Float[Tensor, "*b c f h w"], r: Float[Tensor, "c f h w"], eps: Float[Tensor, "c f h w"]
    ) -> Score:
        """The gradient on Z."""
        ...


@dataclass(frozen=True)
class SDS:
    """Score distillation sampling (DreamFusion): g = e - eps. No reference branch."""

    def __call__(
        self, e: Float[Tensor, "*b c f h w"], r: Float[Tensor, "c f h w"], eps: Float[Tensor, "c f h w"]
    ) -> Score:
        return Score(e - eps)


@dataclass(frozen=True)
class VideoDDS:
    """The delta denoising score on video, loss Eq. 4 with gradient Eq. 5: g = e - r."""

    def __call__(
        self, e: Float[Tensor, "*b c f h w"], r: Float[Tensor, "c f h w"], eps: Float[Tensor, "c f h w"]
    ) -> Score:
        return Score(e - r)


@dataclass(frozen=True)
class ASSD:
    """Adaptive sliding score distillation, Eq. 8: g = m (e - Smooth(r)) + (1 - m) (e - r).

    gamma  weight of the window's middle frame, in (0, 1]; 1 makes it Video-DDS
    tau    margin of the mask, >= 0; +inf makes it Video-DDS, -inf smooths everywhere
    """

    gamma: float
    tau: float

    def __post_init__(self):
        require(0 < self.gamma <= 1, f"gamma must be in (0, 1], the paper has 0.67; got {self.gamma}")
        require(
            self.tau >= 0 or self.tau == -math.inf,
            f"tau must be >= 0 (or -inf to smooth everywhere); got {self.tau}",
        )

    def __call__(
        self, e: Float[Tensor, "*b c f h w"], r: Float[Tensor, "c f h w"], eps: Float[Tensor, "c f h w"]
    ) -> Score:
        m = adaptive_mask(e, r, self.tau)
        return Score(e - torch.where(m, smooth(r, self.gamma), r), m)


def smooth(r: Float[Tensor, "c f h w"], gamma: float) -> Float[Tensor, "c f h w"]:
    """The sliding time-window, Eq. 6: Smooth(r)^i = g1 r^(i-1) + g0 r^i + g1 r^(i+1), g0 = gamma, g1 = (1 - g0) / 2.

    Open in the paper: the first and last frame. Here the edge frame is repeated, which keeps the sum of weights at 1.
    """
    before = torch.cat([r[:, :1], r[:, :-1]], dim=1)
    after = torch.cat([r[:, 1:], r[:, -1:]], dim=1)
    return gamma * r + (1 - gamma) / 2 * (before + after)


def adaptive_mask(
    e: Float[Tensor, "*b c f h w"], r: Float[Tensor, "c f h w"], tau: float
) -> Bool[Tensor, "*b c f h w"]:
    """The adaptive mask, Eq. 7: m = 1 where |e - r| < max over frames of |e - r| - tau, else 0.

    The maximum runs over time alone, so each channel, row and column has its own, and m is decided per element and
    frame. A larger tau gives a *smaller* mask; the paper's sentence about tau says the reverse of its own equation,
    and the equation is what is implemented.
    """
    d = (e - r).abs()
    return d < d.amax(dim=-3, keepdim=True) - tau
