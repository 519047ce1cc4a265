"""Clips by split: the 30 pairs, and the training and validation clips, none of which shares a caption with a pair."""

import csv
import functools
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from assd.shapes.world import (
    ATTRIBUTES,
    KINDS,
    MOTIONS,
    NUM_FRAMES,
    SIZE,
    Bystander,
    Clip,
    draw_clip,
    in_every_direction,
    render,
    visible,
)

PAIRS_CSV = Path(__file__).with_name("pairs.csv")
EDITABLE = ("colour", "shape", "background")


@dataclass(frozen=True)
class ClipPair:
    """A source clip and its true edit; `edit` names the changed attributes, joined by `+`."""

    id: str
    edit: str
    source: Clip
    target: Clip


@functools.cache
def clip_pairs() -> tuple[ClipPair, ...]:
    """The 30 fixed pairs of `pairs.csv`, in its order."""
    with PAIRS_CSV.open(newline="") as file:
        return tuple(parse_pair(row) for row in csv.DictReader(file))


def parse_pair(row: dict[str, str]) -> ClipPair:
    """One row of `pairs.csv`: a clip's record, and the attributes of its true edit as `target_*`."""
    numbers = {name: float(row[name]) for name in ("radius", "x", "y", "travel")}
    source = Clip(
        **{name: row[name] for name in ATTRIBUTES},
        **numbers,
        texture=int(row["texture"]),
        bystander=parse_bystander(row) if row["bystander_colour"] else None,
        pan=(float(row["pan_x"]), float(row["pan_y"])),
    )
    target = source.edited(**{name: row[f"target_{name}"] for name in EDITABLE})
    return ClipPair(row["id"], row["edit"], source, target)


def parse_bystander(row: dict[str, str]) -> Bystander:
    """The second object of a row of `pairs.csv`."""
    numbers = {name: float(row[f"bystander_{name}"]) for name in ("radius", "x", "y")}
    return Bystander(row["bystander_colour"], row["bystander_shape"], **numbers)


@functools.cache
def held_out_captions() -> frozenset[str]:
    """Captions of all sources and targets among the pairs: no training clip has one of them."""
    return frozenset(clip.caption for pair in clip_pairs() for clip in (pair.source, pair.target))


TUNING_EDITS = (("colour",), ("shape",), ("background",), ("colour", "shape"))


def tuning_pair(index: int) -> ClipPair:
    """Pair number `index` of those on which parameters are chosen, no caption of the 30.

    Edits and kinds of clip come in turn: twelve neighbours have every edit in every kind.
    """
    rng = random.Random(f"tuning/{index}")
    changed = TUNING_EDITS[index % len(TUNING_EDITS)]
    while True:
        source = draw_clip(rng, KINDS[index % len(KINDS)])
        target = source.edited(
            **{a: rng.choice([v for v in ATTRIBUTES[a] if v != getattr(source, a)]) for a in changed}
        )
        known = {source.caption, target.caption} & held_out_captions()
        if not known and visible(target.colour, target.background) and bystander_stays(source, target):
            return ClipPair(f"t{index:02d}", "+".join(changed), source, target)


def bystander_stays(source: Clip, target: Clip) -> bool:
    """Whether a bystander can be seen on the target's background and differs from the target's object in colour."""
    there = source.bystander
    return there is None or (there.colour != target.colour and visible(there.colour, target.background))


def clip(split: str, index: int) -> Clip:
    """Clip number `index` of a split, `train` or `validation`: always the same, its caption never held out."""
    rng = random.Random(f"{split}/{index}")
    while (drawn := draw_clip(rng)).caption in held_out_captions():
        pass
    return drawn


def directed_clips(split: str, size: int) -> list[Clip]:
    """At most `size` clips of a split, in groups of four that differ in their motion; no caption is held out.

    Where one of the four captions is, another of the group stands twice in its place.
    """
    clips: list[Clip] = []
    for index in range(size // len(MOTIONS)):
        group = in_every_direction(clip(split, index))
        allowed = [c for c in group if c.caption not in held_out_captions()]
        clips += (allowed * len(MOTIONS))[: len(MOTIONS)]
    return clips


@dataclass(frozen=True)
class Corpus:
    """Rendered clips: frames as bytes to save memory, and the masks of everything that is not background."""

    clips: list[Clip]
    frames: UInt8[Tensor, "clips n 3 H W"]
    masks: Bool[Tensor, "clips n H W"]

    @classmethod
    def render(cls, clips: list[Clip]) -> "Corpus":
        """About 6 ms a clip."""
        size = len(clips)
        frames = torch.empty(size, NUM_FRAMES, 3, SIZE, SIZE, dtype=torch.uint8)
        masks = torch.empty(size, NUM_FRAMES, SIZE, SIZE, dtype=torch.bool)
        for i, drawn in enumerate(clips):
            rendering = render(drawn)
            masks[i] = rendering.masks | rendering.bystander
            frames[i] = ((rendering.frames + 1) * 127.5).round().to(torch.uint8)
        return cls(clips, frames, masks)


def to_floats(frames: UInt8[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Bytes to pixels in [-1, 1]."""
    return frames.float() / 127.5 - 1
