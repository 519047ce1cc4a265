"""Whether an edited video moves as its source does, and holds still where nothing was asked."""

from jaxtyping import Float
from torch import Tensor

from assd.data.flow import FLOWS, enlarged, moved, warp
from evaluation.case import Case, NoMeaning, check_choice, unit

OCCLUSION = (0.01, 0.5)  # Sundaram et al. 2010: a part of the squared flows, plus pixels^2


def visible_in_both(forward: Float[Tensor, "n 2 H W"], backward: Float[Tensor, "n 2 H W"]) -> Tensor:
    """Points whose forward flow is undone by the backward flow there, and that stay inside the frame."""
    height, width = forward.shape[-2:]
    returned = warp(backward, forward)
    relative, absolute = OCCLUSION
    squares = forward.square().sum(1) + returned.square().sum(1)
    consistent = (forward + returned).square().sum(1) < relative * squares + absolute
    to_x, to_y = moved(forward).unbind(1)
    return consistent & (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)


class WarpError:
    """Mean squared difference, times 1000, between each frame and the next one warped back along the source's flow.

    Over the points that a forward-backward check of the source's flow finds in both frames; pixels in [0, 1].
    flow    `dis`, which needs no weights, or `raft`
    device  where RAFT runs
    """

    better = "lower"

    def __init__(self, flow: str = "dis", device: str = "auto"):
        check_choice("flow", flow, tuple(FLOWS))
        self.flow = FLOWS[flow](device)
        self.name = f"warp error (source's {flow.upper()} flow, MSE x 1000)"

    def __call__(self, case: Case) -> float:
        """At least 0, the value of a still video."""
        case.require_several_frames()
        source, frames = enlarged(case.source), enlarged(case.frames)
        forward = self.flow(source[:-1], source[1:])
        visible = visible_in_both(forward, self.flow(source[1:], source[:-1]))
        if not visible.any():
            raise NoMeaning("no point of the source is found in two frames")
        error = (unit(frames[:-1]) - warp(unit(frames[1:]), forward)).square().mean(1)
        return 1000 * error[visible].mean().item()


class Flicker:
    """Mean absolute difference between consecutive frames outside the object, in grey levels of 255.

    A moving camera flickers too: compare with the unedited source.
    """

    name = "flicker outside the object (of 255)"
    better = "lower"

    def __call__(self, case: Case) -> float:
        """Over points that lie outside the object in both frames, where the background was to stay."""
        case.require_several_frames()
        region = case.kept("background")
        both = region[1:] & region[:-1]
        if not both.any():
            raise NoMeaning("no point lies outside the object in two frames")
        return 255 * (unit(case.frames[1:]) - unit(case.frames[:-1])).abs().mean(1)[both].mean().item()
