"""What a metric sees: one video under judgement beside what is known of its pair, and what a metric is."""

import functools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assd.data.pairs import Footage, Prompts
from assd.errors import require

REGIONS = {
    "all": "everywhere",
    "object": "inside the object",
    "background": "outside the object",
    "bystander": "inside the bystander",
}
TO_STAY = {"object": "background", "background": "object"}  # by what changes


@dataclass(frozen=True)
class Case:
    """One video under judgement. All pixels are in [-1, 1], all videos of one length and size.

    frames          the video
    prompts         what describes the source, and what was asked for
    footage         the source video, and its mask and true edit where they are known
    reconstruction  the source through the model's autoencoder, where there is one
    """

    frames: Float[Tensor, "n 3 H W"]
    prompts: Prompts
    footage: Footage
    reconstruction: Float[Tensor, "n 3 H W"] | None = None

    @property
    def source(self) -> Float[Tensor, "n 3 H W"]:
        """The video that was edited."""
        return self.footage.frames

    @functools.cached_property
    def object(self) -> Bool[Tensor, "n H W"] | None:
        """The object's pixels; None where they are unknown.

        Pixels on its edge mix it with the background: where the true edit is known, those that it changes count as what
        was to change.
        """
        masks, truth = self.footage.masks, self.footage.truth
        if masks is None or truth is None or self.footage.changes == "everything":
            return masks
        changed = (truth != self.source).any(1)
        return masks | changed if self.footage.changes == "object" else masks & ~changed

    @property
    def bystander(self) -> Bool[Tensor, "n H W"]:
        """The bystander's pixels, but for those on its edge that a true edit of the background changes.

        Raises NoMeaning where there is none.
        """
        if self.footage.bystander is None:
            raise NoMeaning("there is no bystander")
        truth = self.footage.truth
        return self.footage.bystander if truth is None else self.footage.bystander & (truth == self.source).all(1)

    def region(self, name: str) -> Bool[Tensor, "n H W"]:
        """The pixels of `all`, the `object`, the `background` or the `bystander`.

        Raises NoMeaning where they are unknown or none.
        """
        if name == "all":
            return torch.ones_like(self.frames[:, 0], dtype=torch.bool)
        if name == "bystander":
            return self.bystander
        if self.object is None:
            raise NoMeaning("no mask says where the object is")
        chosen = self.object if name == "object" else ~self.object
        if not chosen.any():
            raise NoMeaning(f"nothing lies {REGIONS[name]}")
        return chosen

    def kept(self, name: str) -> Bool[Tensor, "n H W"]:
        """The pixels of a region that was to stay. Raises NoMeaning where it was to change, is unknown or empty."""
        if name not in (TO_STAY.get(self.footage.changes), "bystander"):
            raise NoMeaning(f"what lies {REGIONS[name]} was to change")
        return self.region(name)

    def require_several_frames(self) -> None:
        """Raises NoMeaning for a single frame, which has no next one."""
        if len(self.frames) < 2:
            raise NoMeaning("a single frame")


class NoMeaning(Exception):
    """A measure has no meaning for this video. The message says why, as a part of a sentence."""


@runtime_checkable
class Metric(Protocol):
    """A measure of an edited video.

    name    in full: what, by which model, over which pairs or region, on which scale. It heads every table
    better  `higher` or `lower`
    """

    name: str
    better: str

    def __call__(self, case: Case) -> float:
        """The value of one video. Raises NoMeaning where the measure has none for it, such as no true edit."""
        ...


def check_choice(argument: str, value: str, known: tuple[str, ...]) -> None:
    """Raises InputError unless `value` is one of `known`."""
    require(value in known, f"{argument} must be one of {', '.join(known)}; got {value!r}")


def unit(frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
    """Pixels from [-1, 1] to [0, 1], the range on which every measure is stated."""
    return (frames + 1) / 2
