"""Noise schedules, and how the four things that a network may predict turn into one another.

A noisy latent is Z_t = alpha_t Z + sigma_t eps. What a network predicts of it:

    epsilon       eps
    v_prediction  v = alpha eps - sigma Z, where alpha^2 + sigma^2 = 1 (Salimans and Ho 2022)
    sample        Z, often written x0
    flow          u = eps - Z, where alpha = 1 - s and sigma = s (rectified flow, s = t / T)

Each becomes a pair of a clean latent and a noise. A pair of v or u is exact for every alpha and sigma; a pair of eps
divides by alpha, and one of Z divides by sigma.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from assd.errors import require

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample", "flow")
SPACINGS = ("leading", "trailing", "linspace")
CLEAN = -1  # the timestep of a latent that no noise was added to


class Level(NamedTuple):
    """How much of a latent and how much noise there is: Z_t = alpha Z + sigma eps."""

    alpha: float
    sigma: float

    def add_noise(self, z: Float[Tensor, "*shape"], eps: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
        """The forward process, Eq. 1: Z_t = alpha Z + sigma eps, with alpha = sqrt(abar_t), sigma = sqrt(1 - abar_t).

        Branches on a leading axis of z share an eps that lacks it.
        """
        return self.alpha * z + self.sigma * eps


NO_NOISE = Level(1.0, 0.0)


class Split(NamedTuple):
    """A prediction, taken apart: Z_t = alpha x0 + sigma eps."""

    x0: Tensor
    eps: Tensor


def split(kind: Prediction, prediction: Tensor, z_t: Tensor, level: Level) -> Split:
    """The clean latent and the noise that a prediction about `z_t` means."""
    alpha, sigma = level
    if kind == "epsilon":
        return Split((z_t - sigma * prediction) / alpha, prediction)
    if kind == "v_prediction":
        return Split(alpha * z_t - sigma * prediction, to_noise(kind, prediction, z_t, level))
    if kind == "flow":
        return Split(z_t - sigma * prediction, to_noise(kind, prediction, z_t, level))
    return Split(prediction, to_noise(kind, prediction, z_t, level))


def to_noise(kind: Prediction, prediction: Tensor, z_t: Tensor, level: Level) -> Tensor:
    """The noise alone: eps; alpha v + sigma Z_t; Z_s + (1 - s) u; or (Z_t - alpha x0) / sigma."""
    alpha, sigma = level
    if kind == "epsilon":
        return prediction
    if kind == "v_prediction":
        return alpha * prediction + sigma * z_t
    if kind == "flow":
        return z_t + alpha * prediction
    return (z_t - alpha * prediction) / sigma


def joined(kind: Prediction, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """What a network of this kind would have predicted: the inverse of `split`."""
    alpha, sigma = level
    if kind == "epsilon":
        return eps
    if kind == "v_prediction":
        return alpha * eps - sigma * x0
    return eps - x0 if kind == "flow" else x0


@dataclass(frozen=True)
class Schedule:
    """alpha_t and sigma_t for t = 0 ... T - 1, and the timesteps that a sampler visits.

    alphas, sigmas  one number a timestep
    final           the level at which sampling ends; published Stable Diffusion ends at that of t = 0, not at (1, 0)
    spacing, offset  diffusers' `timestep_spacing` and `steps_offset`
    """

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    final: Level = NO_NOISE
    spacing: str = "leading"
    offset: int = 0

    def __post_init__(self):
        require(
            self.spacing in SPACINGS,
            f"the scheduler's timestep_spacing must be one of {', '.join(SPACINGS)}; got {self.spacing!r}",
        )

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Float[Tensor, " t"], config: dict[str, Any]) -> "Schedule":
        """Of a diffusion model: alpha_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t); `config` as diffusers keeps it."""
        abar = alphas_cumprod.double().tolist()
        alphas, sigmas = tuple(a**0.5 for a in abar), tuple((1 - a) ** 0.5 for a in abar)
        final = NO_NOISE if config.get("set_alpha_to_one", True) else Level(alphas[0], sigmas[0])
        return cls(alphas, sigmas, final, config.get("timestep_spacing", "leading"), config.get("steps_offset", 0))

    @classmethod
    def flow(cls, length: int = 1000) -> "Schedule":
        """Of a flow-matching model: Z_s = (1 - s) Z + s eps at s = (t + 1) / length, so that the last t is noise."""
        sigmas = tuple((t + 1) / length for t in range(length))
        return cls(tuple(1 - s for s in sigmas), sigmas, spacing="trailing")

    def __len__(self) -> int:
        return len(self.alphas)

    def __getitem__(self, t: int) -> Level:
        """The level of timestep t; of `CLEAN`, the level at which sampling ends."""
        return self.final if t == CLEAN else Level(self.alphas[t], self.sigmas[t])

    def timesteps(self, num_steps: int) -> list[int]:
        """The timesteps of a sampler of so many steps, noisiest first, as diffusers spaces them.

        For some numbers of steps, such as 61, diffusers' trailing ones are one too many and end below 0: that one is
        left out.
        """
        length = len(self)
        require(1 <= num_steps <= length, f"num_steps must be in 1..{length}, the schedule's length; got {num_steps}")
        if self.spacing == "leading":
            ascending = np.arange(num_steps) * (length // num_steps) + self.offset
            return np.minimum(ascending, length - 1)[::-1].tolist()
        if self.spacing == "trailing":
            return (np.round(np.arange(length, 0, -length / num_steps)).astype(int) - 1)[:num_steps].tolist()
        return np.round(np.linspace(0, length - 1, num_steps)).astype(int)[::-1].tolist()

    def agrees_with(self, other: "Schedule") -> bool:
        """Whether both mean the same noisy latent by the same t, to 1e-4."""
        return len(self) == len(other) and bool(
            np.allclose(np.square(self.alphas), np.square(other.alphas), rtol=1e-4)
            and np.allclose(np.square(self.sigmas), np.square(other.sigmas), rtol=1e-4)
        )
