"""Clips whose frames can be told apart, and files that this project did not write."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch


def smooth_clip(count: int = 8, height: int = 48, width: int = 64) -> torch.Tensor:
    """Bytes of a clip without sharp edges in which colours, position and time all matter."""
    t, y, x = torch.meshgrid(torch.arange(count), torch.arange(height), torch.arange(width), indexing="ij")
    red = 40 + 150 * x / width
    green = 40 + 150 * y / height
    blue = 40 + 150 * t / max(count - 1, 1)
    return torch.stack([red, green, blue], dim=-1).round().to(torch.uint8)


def noisy_clip(count: int = 16) -> torch.Tensor:
    """Bytes that don't compress: a file of many bytes a frame."""
    return torch.randint(0, 256, (count, 48, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def numbered_clip(count: int) -> torch.Tensor:
    """A clip whose frame i is grey of brightness 20 + 8 i."""
    return (20 + 8 * torch.arange(count)).to(torch.uint8)[:, None, None, None].expand(count, 32, 32, 3).contiguous()


def numbers(frames: torch.Tensor) -> list[int]:
    """Which frames of a numbered clip these are."""
    return ((frames.float().mean((1, 2, 3)) - 20) / 8).round().int().tolist()


def encode(path: Path, frames: torch.Tensor, codec: str, pix_fmt: str, movflags: str = "") -> None:
    """A file that this project did not write, 10 frames a second; skips where this PyAV has no such encoder."""
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)))
        container.mux(stream.encode())
