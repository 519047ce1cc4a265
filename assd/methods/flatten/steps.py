"""FLATTEN's timesteps: the inversion's, sampling's, and which of the one lend features to which of the other."""

import functools
from dataclasses import dataclass

from assd.diffusion.inversion import downwards, upwards
from assd.diffusion.schedule import Schedule
from assd.errors import require


@dataclass(frozen=True)
class Steps:
    """The steps of both phases; the arguments are those of `Flatten`."""

    schedule: Schedule
    inversion_steps: int
    sampling_steps: int
    injection_steps: int
    shifted_levels: bool
    match_by_position: bool

    @functools.cached_property
    def timesteps(self) -> list[int]:
        """Of sampling, the noisiest first."""
        return self.schedule.timesteps(self.sampling_steps)

    @functools.cached_property
    def sampling(self) -> list[tuple[int, int]]:
        """From each of these to the next."""
        return downwards(self.timesteps)

    @functools.cached_property
    def inversion(self) -> list[tuple[int, int]]:
        """From the clean latent to where sampling begins; as published, from the first timestep to the last.

        Raises InputError for an inversion that doesn't come by where sampling begins.
        """
        ascending, begin = self.schedule.timesteps(self.inversion_steps)[::-1], self.timesteps[0]
        if self.shifted_levels:
            return upwards(ascending[1:], start=ascending[0])
        require(
            begin in ascending,
            f"sampling begins at t = {begin}, which the inversion doesn't visit with {self.inversion_steps} "
            f"inversion_steps: take a multiple of sampling_steps, {self.sampling_steps}",
        )
        return upwards([t for t in ascending if t <= begin])

    @functools.cached_property
    def visited(self) -> list[int]:
        """The sampling timesteps at which the inversion has features to lend, the noisiest first."""
        levels = {s for s, _ in self.inversion} | (set() if self.shifted_levels else {self.timesteps[0]})
        return [t for t in self.timesteps if t in levels]

    @functools.cached_property
    def sources(self) -> dict[int, int]:
        """Of each sampling timestep with injection the timestep of the inversion whose features it takes.

        Raises InputError where the inversion doesn't have them.
        """
        count = self.injection_steps
        require(
            0 <= count <= self.sampling_steps,
            f"injection_steps must be in 0..{self.sampling_steps}, the sampling_steps; got {count}",
        )
        wanted, visited = self.timesteps[:count], self.visited
        sources = dict(zip(wanted, visited)) if self.match_by_position else {t: t for t in wanted if t in visited}
        require(
            len(sources) == count,
            f"{count} injection_steps need as many of the inversion's, and with {self.inversion_steps} "
            f"inversion_steps there are {len(sources)}: take a multiple of sampling_steps, {self.sampling_steps}",
        )
        return sources
