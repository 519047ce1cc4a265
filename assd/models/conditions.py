"""What a ControlNet is conditioned on: of each source frame a map of its edges, its depth or its poses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor

from assd.data.video import to_bytes
from assd.device import resolve_device
from assd.errors import InputError, require
from assd.models.store import held

Condition: TypeAlias = Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "H W 3"]]
"""Makes the map of a frame; both are RGB."""

DETECTORS = {  # of controlnet_aux, and the files of its weights
    "MidasDetector": ("dpt_hybrid-midas-501f0c75.pt",),
    "OpenposeDetector": ("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth"),
}


def control_maps(
    frames: Float[Tensor, "n 3 H W"], condition: Condition, wrap: bool = False
) -> Float[Tensor, "n 3 H W"]:
    """The map of each frame, RGB in [0, 1]. `wrap` shows the condition the frames as `wrapped` says."""
    seen = wrapped(frames) if wrap else to_bytes(frames)
    maps = np.stack([condition(np.ascontiguousarray(frame)) for frame in seen.numpy()])
    return rearrange(torch.from_numpy(maps), "n H W c -> n c H W").float() / 255


def wrapped(frames: Float[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n H W 3"]:
    """Pixels in [-1, 1] taken for pixels in [0, 1]: 255 x, cut to an integer, modulo 256.

    A byte p becomes 2p + 1 below 64, (2p + 2) mod 256 below 128 and 2p - 255 above: frames look solarised. So
    ControlVideo's published code shows them to its annotators.
    """
    return rearrange((255 * frames).to(torch.int64).remainder(256).to(torch.uint8), "n c H W -> n H W c").contiguous()


@dataclass(frozen=True)
class Canny:
    """Edges (Canny 1986) by OpenCV, white on black.

    low, high  thresholds of the gradient: an edge starts above `high` and goes on above `low`
    """

    low: float = 100
    high: float = 200

    def __post_init__(self):
        require(0 <= self.low <= self.high, f"canny needs 0 <= low <= high; got {self.low}, {self.high}")

    def __call__(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The edges of a frame."""
        return repeat(cv2.Canny(frame, self.low, self.high), "H W -> H W c", c=3)


@dataclass(frozen=True)
class Annotator:
    """Depth or poses by a network of the package controlnet_aux, loaded at the first frame.

    detector  `MidasDetector`, depth (Ranftl et al. 2021), or `OpenposeDetector`, bodies (Cao et al. 2017)
    weights   local folder or hub id of its weights
    """

    detector: str
    weights: str
    device: str = "auto"

    def __post_init__(self):
        require(
            self.detector in DETECTORS,
            f"detector must be one of {', '.join(DETECTORS)}; got {self.detector!r}",
        )

    def __call__(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The map of a frame, at the frame's size. Raises InputError where package or weights are missing."""
        height, width = frame.shape[:2]
        detector, side = load_detector(self.detector, self.weights, self.device), min(height, width)
        found = detector(frame, detect_resolution=side, image_resolution=side, output_type="np")
        return cv2.resize(found, (width, height))  # a detector rounds the size to multiples of 64


@held
def load_detector(detector: str, weights: str, device: str) -> Any:
    """A detector of controlnet_aux on a device. Raises InputError where package or weights are missing."""
    try:
        import controlnet_aux  # type: ignore[import-not-found]  # noqa: PLC0415  (an optional package)
    except ImportError as error:
        raise InputError(
            f"{detector} needs the package controlnet_aux ({error}). Install it with: pip install controlnet_aux. "
            f"Or take control_net=canny, which needs nothing"
        ) from error
    try:
        return getattr(controlnet_aux, detector).from_pretrained(weights).to(str(resolve_device(device)))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{detector} can't read its weights from {weights!r}: {error}\nTo fetch them:\n"
            f"  hf download {weights} {' '.join(DETECTORS[detector])}"
        ) from error
