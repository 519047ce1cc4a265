"""The 30 embedded pairs as a dataset."""

import functools

from assd.data import Footage, Prompts, TextVideoPair, check_limit
from assd.errors import require
from assd.shapes.corpus import ClipPair, clip_pairs
from assd.shapes.world import NUM_FRAMES, SIZE, render

FPS = 8.0


def shapes(num_frames: int, height: int, width: int, limit: int | None = None) -> list[TextVideoPair]:
    """The first `limit` of the 30 pairs, all by default; clips have 8 frames of 64 x 64 pixels and no other size."""
    require(
        (num_frames, height, width) == (NUM_FRAMES, SIZE, SIZE),
        f"dataset=shapes has {NUM_FRAMES} frames of {SIZE} x {SIZE} pixels, and the model asks for {num_frames} of "
        f"{height} x {width}: use model=shapes, or another dataset",
    )
    check_limit(limit)
    return [
        TextVideoPair(pair.id, Prompts(pair.source.caption, pair.target.caption), functools.partial(footage, pair))
        for pair in clip_pairs()[:limit]
    ]


def footage(pair: ClipPair) -> Footage:
    """Source frames, exact mask of the object, and the true edit."""
    frames, masks = render(pair.source)
    return Footage(frames, FPS, masks, truth=render(pair.target)[0])
