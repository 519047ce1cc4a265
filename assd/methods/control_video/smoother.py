"""ControlVideo's interleaved-frame smoother: every other frame is interpolated from its neighbours."""

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from assd.data.video import to_bytes

Interpolation: TypeAlias = Callable[[Float[Tensor, "3 H W"], Float[Tensor, "3 H W"]], Float[Tensor, "3 H W"]]
"""Makes the frame between two; all are pixels in [-1, 1]."""


def triples(frames: int, step: int) -> list[tuple[int, int, int]]:
    """Which frames are interpolated at a step: (left neighbour, right neighbour, frame).

    At an even step the odd frames, but not the last one. At an odd step the even frames, of which those at an end,
    where one neighbour is missing, lie between themselves and the other.

    >>> triples(5, step=2), triples(5, step=3)
    ([(0, 2, 1), (2, 4, 3)], [(0, 1, 0), (1, 3, 2), (3, 4, 4)])
    """
    if step % 2 == 0:
        return [(i - 1, i + 1, i) for i in range(1, frames - 1, 2)]
    return [(max(i - 1, 0), min(i + 1, frames - 1), i) for i in range(0, frames, 2)]


def smoothed(pixels: Float[Tensor, "n 3 H W"], step: int, between: Interpolation) -> Float[Tensor, "n 3 H W"]:
    """The video with this step's frames interpolated from the other ones."""
    result = pixels.clone()
    for left, right, target in triples(len(pixels), step):
        result[target] = between(pixels[left], pixels[right])
    return result


def average(left: Float[Tensor, "3 H W"], right: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
    """The mean of both."""
    return (left + right) / 2


def flow_based(left: Float[Tensor, "3 H W"], right: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
    """The mean of both, each first moved half of its way to the other.

    The way is optical flow by dense inverse search (Kroeger et al. 2016), as OpenCV has it. That the flow of a point
    half-way is that of the pixel there is exact where neighbouring pixels move alike.
    """
    return average(moved_half(left, flow(left, right)), moved_half(right, flow(right, left)))


def flow(first: Float[Tensor, "3 H W"], second: Float[Tensor, "3 H W"]) -> Float[np.ndarray, "H W xy"]:
    """By how many pixels (x, y) each point of `first` moves until `second`."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    grey = [cv2.cvtColor(frame.numpy(), cv2.COLOR_RGB2GRAY) for frame in to_bytes(torch.stack([first, second]))]
    return search.calc(*grey, None)


def moved_half(frame: Float[Tensor, "3 H W"], way: Float[np.ndarray, "H W xy"]) -> Float[Tensor, "3 H W"]:
    """A frame, its points moved by half of the flow; what comes from outside continues the border."""
    height, width = way.shape[:2]
    here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    origin = (here - way / 2).astype(np.float32)
    picture = np.ascontiguousarray(rearrange(frame, "c H W -> H W c").numpy())
    there = cv2.remap(picture, origin, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return rearrange(torch.from_numpy(there), "H W c -> c H W")


INTERPOLATIONS: dict[str, Interpolation] = {"flow": flow_based, "average": average}
