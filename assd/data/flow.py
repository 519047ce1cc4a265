"""Optical flow: the way, in pixels (x, y), that each point of a frame moves until the next frame."""

from collections.abc import Callable

import cv2
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from assd.data.video import to_bytes
from assd.device import resolve_device
from assd.files import require_weights

FLOW_SIZE = 256  # least short side at which flow is sought; smaller frames are enlarged for it

Flow = Callable[[Float[Tensor, "n 3 H W"], Float[Tensor, "n 3 H W"]], Float[Tensor, "n 2 H W"]]


def dis_flow(first: Float[Tensor, "n 3 H W"], second: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 2 H W"]:
    """Dense inverse search (Kroeger et al. 2016) by OpenCV: pixels (x, y) by which each point of `first` moves."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    grey = [[cv2.cvtColor(f.numpy(), cv2.COLOR_RGB2GRAY) for f in to_bytes(video.cpu())] for video in (first, second)]
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
