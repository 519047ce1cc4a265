"""Loss components: each binds a model to a score rule and gives a gradient on Z; the optimizer sees their sum."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from assd.diffusion.draw import Draw
from assd.diffusion.guidance import EMPTY, check_scale, guided_noise
from assd.diffusion.model import Model
from assd.errors import require
from assd.methods.score_distillation.rules import ScoreRule


@dataclass(frozen=True)
class Branches:
    """What one forward pass predicts: an editing branch for each target, and the reference branch, which they share.

    latents  Z^1 ... Z^b, then Z_ref
    prompts  y*^1 ... y*^b, then y
    """

    latents: Float[Tensor, "branch c f h w"]
    prompts: tuple[str, ...]

    @property
    def Z(self) -> Float[Tensor, "b c f h w"]:
        """The edited latents: a view."""
        return self.latents[:-1]

    @property
    def Z_ref(self) -> Float[Tensor, "c f h w"]:
        """The source video's latent: a view."""
        return self.latents[-1]


@dataclass(frozen=True)
class Contribution:
    """A component's gradient on Z, and for each edit numbers worth a curve (tensors, so that no device has to wait)."""

    gradient: Float[Tensor, "b c f h w"]
    curves: dict[str, Float[Tensor, " b"]] = field(default_factory=dict)


@runtime_checkable
class LossComponent(Protocol):
    """What a run sums up."""

    def __call__(self, branches: Branches, draw: Draw) -> Contribution:
        """The gradient on Z of this component for one draw of t and eps."""
        ...


@dataclass(frozen=True)
class VideoScore:
    """A score rule (`SDS`, `VideoDDS`, `ASSD`) on the text-to-video model; all branches in one forward pass.

    guidance_scale            w of the editing branches, and of the reference branch unless it has its own
    reference_guidance_scale  w of the reference branch
    negative_prompt           what guidance leads away from
    """

    model: Model
    rule: ScoreRule
    guidance_scale: float
    weight: float = 1.0
    reference_guidance_scale: float | None = None
    negative_prompt: str = EMPTY

    def __post_init__(self):
        check_scales(self.guidance_scale, self.reference_guidance_scale, self.weight)

    def __call__(self, branches: Branches, draw: Draw) -> Contribution:
        Z_t = self.model.schedule[draw.t].add_noise(branches.latents, draw.eps)
        w = of_branches(branches, self.guidance_scale, self.reference_guidance_scale)
        noise = guided_noise(self.model, Z_t, draw.t, branches.prompts, w, self.negative_prompt)
        score = self.rule(noise[:-1], noise[-1], draw.eps)
        curves = {} if score.mask is None else {"mask_coverage": score.mask.float().flatten(1).mean(1)}
        return Contribution(self.weight * score.gradient, curves)


@dataclass(frozen=True)
class JointGuidance:
    """The image model's delta denoising score, Eq. 3, on the key frames i = 0, s, 2s, ...

    Eq. 9: eps_Omega^w(z^i_t, t, y*) - eps_Omega^w(z_ref^i_t, t, y), zero on every other frame. t and eps are those of
    the video branch. The arguments are `VideoScore`'s.
    """

    model: Model
    stride: int
    guidance_scale: float
    weight: float = 1.0
    reference_guidance_scale: float | None = None
    negative_prompt: str = EMPTY

    def __post_init__(self):
        require(self.stride >= 1, f"stride must be >= 1 (1 guides every frame); got {self.stride}")
        check_scales(self.guidance_scale, self.reference_guidance_scale, self.weight)

    def __call__(self, branches: Branches, draw: Draw) -> Contribution:
        key = slice(None, None, self.stride)
        z_t = self.model.schedule[draw.t].add_noise(branches.latents[:, :, key], draw.eps[:, key])
        w = of_branches(branches, self.guidance_scale, self.reference_guidance_scale)
        noise = guided_noise(self.model, z_t, draw.t, branches.prompts, w, self.negative_prompt)
        gradient = torch.zeros_like(branches.Z)
        gradient[:, :, key] = self.weight * (noise[:-1] - noise[-1])
        return Contribution(gradient)


def of_branches(branches: Branches, w: float, w_ref: float | None) -> "float | list[float]":
    """One guidance scale for all branches, or one a branch where the reference branch has its own."""
    return w if w_ref is None or w_ref == w else [*(w for _ in branches.Z), w_ref]


def check_scales(guidance_scale: float, reference_guidance_scale: float | None, weight: float) -> None:
    """Raises InputError for a negative guidance scale w or weight."""
    check_scale(guidance_scale)
    check_scale(guidance_scale if reference_guidance_scale is None else reference_guidance_scale)
    require(weight >= 0, f"weight must be >= 0; got {weight}")
