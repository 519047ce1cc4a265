"""Loss components: each binds a model to a score rule and gives a gradient on Z; the optimizer sees their sum."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from assd.draw import Draw
from assd.errors import require
from assd.guidance import guided_noise
from assd.models import LatentDiffusion
from assd.scores import ScoreRule


@dataclass(frozen=True)
class Branches:
    """What one forward pass predicts: an editing branch for each target, and the reference branch, which they share.

    latents  Z^1 ... Z^b, then Z_ref
    prompts  y*^1 ... y*^b, then y
    """

    latents: Float[Tensor, "branch c n h w"]
    prompts: tuple[str, ...]

    @property
    def Z(self) -> Float[Tensor, "b c n h w"]:
        """The edited latents: a view."""
        return self.latents[:-1]

    @property
    def Z_ref(self) -> Float[Tensor, "c n h w"]:
        """The source video's latent: a view."""
        return self.latents[-1]


@dataclass(frozen=True)
class Contribution:
    """A component's gradient on Z, and for each edit numbers worth a curve (tensors, so that no device has to wait)."""

    gradient: Float[Tensor, "b c n h w"]
    curves: dict[str, Float[Tensor, " b"]] = field(default_factory=dict)


@runtime_checkable
class LossComponent(Protocol):
    """What a run sums up."""

    def __call__(self, branches: Branches, draw: Draw) -> Contribution:
        """The gradient on Z of this component for one draw of t and eps."""
        ...


@dataclass(frozen=True)
class VideoScore:
    """A score rule (`SDS`, `VideoDDS`, `ASSD`) on the text-to-video model; all branches in one forward pass."""

    model: LatentDiffusion
    rule: ScoreRule
    guidance_scale: float
    weight: float = 1.0

    def __post_init__(self):
        check_scales(self.guidance_scale, self.weight)

    def __call__(self, branches: Branches, draw: Draw) -> Contribution:
        Z_t = self.model.add_noise(branches.latents, draw.t, draw.eps)
        noise = guided_noise(self.model, Z_t, draw.t, branches.prompts, self.guidance_scale)
        score = self.rule(noise[:-1], noise[-1], draw.eps)
        curves = {} if score.mask is None else {"mask_coverage": score.mask.float().flatten(1).mean(1)}
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

    def __call__(self, branches: Branches, draw: Draw) -> Contribution:
        key = slice(None, None, self.stride)
        z_t = self.model.add_noise(branches.latents[:, :, key], draw.t, draw.eps[:, key])
        n = z_t.shape[2]
        z_t = rearrange(z_t, "b c n h w -> (b n) c h w")
        prompts = [prompt for prompt in branches.prompts for _ in range(n)]
        noise = guided_noise(self.model, z_t, draw.t, prompts, self.guidance_scale)
        noise = rearrange(noise, "(b n) c h w -> b c n h w", n=n)
        gradient = torch.zeros_like(branches.Z)
        gradient[:, :, key] = self.weight * (noise[:-1] - noise[-1])
        return Contribution(gradient)


def check_scales(guidance_scale: float, weight: float) -> None:
    """Raises `InputError` for a negative guidance scale w or weight."""
    require(guidance_scale >= 0, f"guidance_scale (w) must be >= 0; got {guidance_scale}")
    require(weight >= 0, f"weight must be >= 0; got {weight}")
