"""Whether an edited video moves as its source does, and holds still where nothing was asked."""

from collections.abc import Callable

import cv2
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from assd.data.video import to_bytes
from assd.device import resolve_device
from evaluation.case import Case, NoMeaning, check_choice, require_weights, unit

FLOW_SIZE = 256  # least short side at which flow is sought; smaller frames are enlarged for it
OCCLUSION = (0.01, 0.5)  # Sundaram et al. 2010: a part of the squared flows, plus pixels^2

Flow = Callable[[Float[Tensor, "n 3 H W"], Float[Tensor, "n 3 H W"]], Float[Tensor, "n 2 H W"]]


def dis_flow(first: Float[Tensor, "n 3 H W"], second: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 2 H W"]:
    """Dense inverse search (Kroeger et al. 2016) by OpenCV: pixels (x, y) by which each point of `first` moves."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    grey = [[cv2.cvtColor(f.numpy(), cv2.COLOR_RGB2GRAY) for f in to_bytes(video)] for video in (first, second)]
    flows = [torch.from_numpy(search.calc(a, b, None)) for a, b in zip(*grey)]
    return rearrange(torch.stack(flows), "n H W xy -> n xy H W")


class RaftFlow:
    """RAFT (Teed and Deng 2020) by torchvision, its large model.

    Raises InputError where torch's cache does not hold its weights.
    """

    weights = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"

    def __init__(self, device: str = "auto"):
        from torchvision.models.optical_flow import Raft_Large_Weights, raft_large  # noqa: PLC0415  (slow to import)

        require_weights("flow=raft (flow=dis needs none)", self.weights)
        self.device = resolve_device(device)
        self.model = raft_large(weights=Raft_Large_Weights.C_T_SKHT_V2).eval().to(self.device)

    @torch.no_grad()
    def __call__(self, first: Float[Tensor, "n 3 H W"], second: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 2 H W"]:
        """The last of its estimates, of frames that are widened at their edge to sides of multiples of 8."""
        height, width = first.shape[-2:]
        wide = (0, -width % 8, 0, -height % 8)
        first, second = (F.pad(frames, wide, mode="replicate").to(self.device) for frames in (first, second))
        return self.model(first, second)[-1][..., :height, :width].cpu()


FLOWS: dict[str, Callable[[str], Flow]] = {"dis": lambda device: dis_flow, "raft": RaftFlow}


def enlarged(frames: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c h w"]:
    """The frames at a whole multiple of their size, whose short side is at least `FLOW_SIZE`."""
    factor = -(-FLOW_SIZE // min(frames.shape[-2:]))
    return F.interpolate(frames, scale_factor=factor, mode="bicubic", align_corners=False).clamp(-1, 1)


def warp(frames: Float[Tensor, "n c H W"], flow: Float[Tensor, "n 2 H W"]) -> Float[Tensor, "n c H W"]:
    """frames(x + flow(x)), bilinear; outside the frame, its edge."""
    height, width = frames.shape[-2:]
    size = torch.tensor([width, height], dtype=flow.dtype).view(2, 1, 1)
    grid = rearrange((2 * moved(flow) + 1) / size - 1, "n xy H W -> n H W xy")
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=False)


def moved(flow: Float[Tensor, "n 2 H W"]) -> Float[Tensor, "n 2 H W"]:
    """Where each point (x, y) goes, in pixels."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]) + flow


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
