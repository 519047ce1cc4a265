"""How ControlVideo's hierarchical sampler divides a long video, and which frames of a clip its attention sees."""

import itertools

from assd.diffusion.frames import FrameTable

SEEN = {"keys": (0, 1), "first_and_last": (0, -1)}  # positions in a window's clip
SHORTEST = 3  # of a window: its two key frames, and one between


def key_frames(frames: int, window: int) -> list[int]:
    """Every (window - 1)-th frame, and the last.

    >>> key_frames(11, window=4)
    [0, 3, 6, 9, 10]
    """
    return sorted({*range(0, frames, window - 1), frames - 1})


def window_clips(keys: list[int]) -> list[list[int]]:
    """Of each two key frames with others between: both, then those between.

    >>> window_clips([0, 3, 6, 7])
    [[0, 3, 1, 2], [3, 6, 4, 5]]
    """
    return [[left, right, *range(left + 1, right)] for left, right in itertools.pairwise(keys) if right - left > 1]


def window_table(frames: int, sees: str) -> FrameTable:
    """Of a window's clip: all frames see its two key frames, or the first of them and the clip's last frame.

    A clip's last frame is one between the key frames, so that `first_and_last` leaves the second key frame unseen.

    >>> window_table(4, "keys"), window_table(4, "first_and_last")
    ([[0, 1], [0, 1], [0, 1], [0, 1]], [[0, 3], [0, 3], [0, 3], [0, 3]])
    """
    return [[range(frames)[position] for position in SEEN[sees]]] * frames
