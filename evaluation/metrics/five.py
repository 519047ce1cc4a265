"""FiVE-Bench's way of taking a measure: some of the frames, each by itself, black outside a part, on its own scale."""

import functools
from collections.abc import Callable, Iterator
from statistics import fmean

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assd.data.pairs import Footage
from evaluation.case import REGIONS, Case, Metric, NoMeaning, check_choice

FRAMES = slice(0, 40, 8)  # every 8th of the first 40: numbers 0, 8, 16, 24 and 32


class FiveMean:
    """The mean of a measure over FiVE-Bench's frames, each measured as a video of its own.

    name, better  what tables say of it
    metric        makes the measure, when the first video is scored: what cannot be loaded is a row with the reason
    region        `all`, or the part outside which source and edit are black: `object` or `background`. A frame without
                  such a part does not count
    scale         the published tables' factor
    """

    def __init__(self, name: str, better: str, metric: Callable[[], Metric], region: str = "all", scale: float = 1.0):
        check_choice("better", better, ("higher", "lower"))
        check_choice("region", region, tuple(REGIONS))
        self.name, self.better = name, better
        self.make, self.region, self.scale = metric, region, scale

    @functools.cached_property
    def metric(self) -> Metric:
        """The measure of one frame."""
        return self.make()

    def __call__(self, case: Case) -> float:
        """Raises NoMeaning where the part is unknown, or in none of the frames."""
        values = [self.metric(frame) for frame in frames_of(case, self.region)]
        if not values:
            raise NoMeaning(f"nothing lies {REGIONS[self.region]} in any of FiVE-Bench's frames")
        return self.scale * fmean(values)


def frames_of(case: Case, region: str) -> Iterator[Case]:
    """FiVE-Bench's frames that have such a part, each a video of one frame, black outside the part."""
    parts = case.region(region)
    for i in range(len(case.frames))[FRAMES]:
        if parts[i].any():
            frames, source = (black_outside(video[i : i + 1], parts[i]) for video in (case.frames, case.source))
            yield Case(frames, case.prompts, Footage(source, case.footage.fps))


def black_outside(frames: Float[Tensor, "n 3 H W"], part: Bool[Tensor, "H W"]) -> Float[Tensor, "n 3 H W"]:
    """Pixels in [-1, 1], -1 outside the part."""
    return frames.where(part, torch.tensor(-1.0))
