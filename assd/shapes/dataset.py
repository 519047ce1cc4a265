"""The embedded pairs as a dataset: the 30, and others on which parameters are chosen."""

import functools

from assd.data.pairs import Canvas, Footage, Prompts, TextVideoPair, portion
from assd.errors import require
from assd.shapes.corpus import ClipPair, clip_pairs, tuning_pair
from assd.shapes.motion import motion
from assd.shapes.world import NUM_FRAMES, SIZE, render

FPS = 8.0
TUNING_PAIRS = 48
CANVAS = Canvas(NUM_FRAMES, SIZE, SIZE)


def shapes(
    num_frames: int,
    height: int,
    width: int,
    limit: int | None = None,
    split: str = "benchmark",
    shard: str | None = None,
) -> list[TextVideoPair]:
    """The pairs of a split, or the portion that `limit` and `shard` leave of them.

    Clips have 8 frames of 64 x 64 pixels and no other size.

    split  `benchmark`, the 30 pairs that tables are made of; `tuning`, 48 others to choose parameters on
    """
    canvas = Canvas(num_frames, height, width)
    check_canvas(canvas)
    require(split in ("benchmark", "tuning"), f"dataset.split must be benchmark or tuning; got {split!r}")
    pairs = clip_pairs() if split == "benchmark" else [tuning_pair(index) for index in range(TUNING_PAIRS)]
    return [
        TextVideoPair(
            pair.id,
            Prompts(pair.source.caption, pair.target.caption),
            functools.partial(footage, pair),
            pair.id,
            canvas,
        )
        for pair in portion(pairs, limit, shard)
    ]


def check_canvas(canvas: Canvas) -> None:
    """Raises InputError for any other canvas than the world's own."""
    require(
        canvas == CANVAS,
        f"dataset=shapes has {NUM_FRAMES} frames of {SIZE} x {SIZE} pixels, and the model asks for {canvas}: "
        f"use model=shapes, or another dataset",
    )


def footage(pair: ClipPair, canvas: Canvas = CANVAS) -> Footage:
    """Source frames, the true edit, the exact masks of the object in both and of a bystander, what was asked for."""
    check_canvas(canvas)
    source, target = render(pair.source), render(pair.target)
    changed = pair.edit.split("+")
    return Footage(
        source.frames,
        FPS,
        masks=source.masks | target.masks,
        truth=target.frames,
        changes="object" if "background" not in changed else "background" if len(changed) == 1 else "everything",
        asked={attribute: getattr(pair.target, attribute) for attribute in changed},
        bystander=source.bystander if pair.source.bystander else None,
        flow=motion(pair.source),
    )
