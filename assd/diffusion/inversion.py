"""Deterministic DDIM sampling and DDIM inversion, one step at a time, so that a caller can look at every latent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from assd.diffusion.schedule import CLEAN, Prediction, Schedule, split, to_noise
from assd.errors import require

Predictor = Callable[[Float[Tensor, "b c f h w"], int], Float[Tensor, "b c f h w"]]  # (z_t, t) -> prediction
NetworkTime = Literal["source", "target"]
NETWORK_TIMES = ("source", "target")


@dataclass(frozen=True)
class DDIM:
    """DDIM with eta = 0 (Song et al. 2021, Eq. 12): Z_s = alpha_s x0 + sigma_s eps, towards noise or away from it.

    schedule, kind  the model's schedule, and what it predicts
    network_time    at which time the network is asked in an inversion step from s to t. `target`: at t, though the
                    latent has the noise of s, as most published editors do. `source`: at s, which is what the network
                    was trained for; of a clean latent, which no timestep stands for, also at t
    """

    schedule: Schedule
    kind: Prediction
    network_time: NetworkTime = "target"

    def __post_init__(self):
        require(
            self.network_time in NETWORK_TIMES,
            f"network_time must be one of {', '.join(NETWORK_TIMES)}; got {self.network_time!r}",
        )

    def sampling_step(
        self, predict: Predictor, z: Float[Tensor, "b c f h w"], t: int, to: int
    ) -> Float[Tensor, "b c f h w"]:
        """From t to a less noisy timestep or `CLEAN`."""
        return self.step(predict(z, t), z, t, to)

    def step(
        self, prediction: Float[Tensor, "*shape"], z: Float[Tensor, "*shape"], t: int, to: int
    ) -> Float[Tensor, "*shape"]:
        """The same with a prediction at hand. Of v or flow velocity it is exact at alpha = 0, pure noise."""
        x0, eps = split(self.kind, prediction, z, self.schedule[t])
        return self.schedule[to].add_noise(x0, eps)

    def inversion_step(
        self, predict: Predictor, z: Float[Tensor, "b c f h w"], s: int, t: int
    ) -> Float[Tensor, "b c f h w"]:
        """From s, a timestep or `CLEAN`, to the noisier t: x0 = (Z_s - sigma_s eps) / alpha_s, then to t."""
        asked = s if self.network_time == "source" and s != CLEAN else t
        eps = to_noise(self.kind, predict(z, asked), z, self.schedule[asked])
        x0 = (z - self.schedule[s].sigma * eps) / self.schedule[s].alpha
        return self.schedule[t].add_noise(x0, eps)


def downwards(timesteps: Sequence[int]) -> list[tuple[int, int]]:
    """The sampling steps (t, to) through descending timesteps; the last one ends at `CLEAN`."""
    return list(zip(timesteps, [*timesteps[1:], CLEAN]))


def upwards(timesteps: Sequence[int], start: int = CLEAN) -> list[tuple[int, int]]:
    """The inversion steps (s, t) from `start` through ascending timesteps."""
    return list(zip([start, *timesteps], timesteps))
