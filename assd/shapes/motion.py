"""The true motion of the embedded world's clips."""

import torch
from jaxtyping import Float
from torch import Tensor

from assd.shapes.world import MOTIONS, NUM_FRAMES, SIZE, Clip, render


def motion(clip: Clip) -> Float[Tensor, "m 2 H W"]:
    """Optical flow from each frame to the next, in pixels (x, y): the object's within its mask, and none elsewhere."""
    masks = render(clip)[1][:-1]
    step = SIZE / 2 / (NUM_FRAMES - 1)  # pixels that a way of one half-width has between two frames
    of_object = torch.tensor(MOTIONS[clip.motion])[:, None, None] * clip.travel * step
    return torch.where(masks[:, None], of_object, torch.zeros(()))
