"""Loss components: each binds a model to a score rule and gives a gradient on Z; the optimizer sees their sum."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from assd.data import Prompts
from assd.draw import Draw
from assd.errors import require
from assd.guidance import guided_noise
from assd.models import LatentDiffusion
from assd.scores import ScoreRule


@dataclass(frozen=True)
class Contribution:
    """A component's gradient on Z, and scalars worth a curve (tensors, so that no device has to wait)."""

    gradient: Float[Tensor, "c n h w"]
    curves: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class LossComponent(Protocol):
    """What a run sums up."""

    def __call__(
        self, Z: Float[Tensor, "c n h w"], Z_ref: Float[Tensor, "c n h w"], prompts: Prompts, draw: Draw
    ) -> Contribution:
        """The gradient on Z of this component, for one draw of t and eps."""
        ...


@dataclass(frozen=True)
class VideoScore:
    """A score rule (`SDS`, `VideoDDS`, `ASSD`) on the text-to-video model; both branches in one forward pass."""

    model: LatentDiffusion
    rule: ScoreRule
    guidance_scale: float
    weight: float = 1.0

    def __post_init__(self):
        check_scales(self.guidance_scale, self.weight)

    def __call__(
        self, Z: Float[Tensor, "c n h w"], Z_ref: Float[Tensor, "c n h w"], prompts: Prompts, draw: Draw
    ) -> Contribution:
        Z_t = self.model.add_noise(torch.stack([Z, Z_ref]), draw.t, draw.eps)
        e, r = guided_noise(self.model, Z_t, draw.t, (prompts.target, prompts.source), self.guidance_scale)
        score = self.rule(e, r, draw.eps)
        curves = {} if score.mask is None else {"mask_coverage": score.mask.float().mean()}
        return Contribution(self.weight * score.gradient, curves)


@dataclass(frozen=True)
class JointGuidance:
    """The image model's delta denoising score, Eq. 3, on the key frames i = 0, s, 2s, ...

    Eq. 9: eps_Omega^w(z^i_t, t, y*) - eps_Omega^w(z_ref^i_t, t, y), zero on every other frame. t and eps are those of
    the video branch.
    """

    model: LatentDiffusion
    stride: int
    guidance_scale: float
    weight: float = 1.0

    def __post_init__(self):
        require(self.stride >= 1, f"stride must be >= 1 (1 guides every frame); got {self.stride}")
        check_scales(self.guidance_scale, self.weight)

    def __call__(
        self, Z: Float[Tensor, "c n h w"], Z_ref: Float[Tensor, "c n h w"], prompts: Prompts, draw: Draw
    ) -> Contribution:
        key = slice(None, None, self.stride)
        frames = rearrange([Z[:, key], Z_ref[:, key]], "branch c n h w -> (branch n) c h w")
        eps = rearrange([draw.eps[:, key]] * 2, "branch c n h w -> (branch n) c h w")
        z_t = self.model.add_noise(frames, draw.t, eps)
        n = len(frames) // 2
        noise = guided_noise(
            self.model, z_t, draw.t, (prompts.target,) * n + (prompts.source,) * n, self.guidance_scale
        )
        e, r = rearrange(noise, "(branch n) c h w -> branch c n h w", branch=2)
        gradient = torch.zeros_like(Z)
        gradient[:, key] = self.weight * (e - r)
        return Contribution(gradient)


def check_scales(guidance_scale: float, weight: float) -> None:
    """Raises `InputError` for a negative guidance scale w or weight."""
    require(guidance_scale >= 0, f"guidance_scale (w) must be >= 0; got {guidance_scale}")
    require(weight >= 0, f"weight must be >= 0; got {weight}")
