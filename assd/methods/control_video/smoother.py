"""ControlVideo's interleaved-frame smoother: every other frame is interpolated from its neighbours."""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from assd.data.flow import dis_flow, warp

Interpolation: TypeAlias = Callable[[Float[Tensor, "n 3 H W"], Float[Tensor, "n 3 H W"]], Float[Tensor, "n 3 H W"]]
"""Makes the frame between two, for several pairs; all are pixels in [-1, 1]."""


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
    if chosen := triples(len(pixels), step):
        left, right, target = map(list, zip(*chosen))
        result[target] = between(pixels[left], pixels[right])
    return result


def average(left: Float[Tensor, "n 3 H W"], right: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
    """The mean of both."""
    return (left + right) / 2


def flow_based(left: Float[Tensor, "n 3 H W"], right: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
    """The mean of both, each first moved half of its way to the other, which optical flow by OpenCV finds.

    It takes for the flow of a point half-way that of the pixel there: exact where neighbouring pixels move alike.
    """
    return average(warp(left, -dis_flow(left, right) / 2), warp(right, -dis_flow(right, left) / 2))


INTERPOLATIONS: dict[str, Interpolation] = {"flow": flow_based, "average": average}
