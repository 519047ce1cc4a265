"""Clips for the page: all of one pair in one size and length, encoded alike, with nothing in them that names a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from assd.data.video import ENCODINGS, read_video, write_video

ENCODING = replace(  # H.264 in which a rater sees no trace of it, without any metadata of the file it came from
    ENCODINGS[".mp4"],
    codec_options=ENCODINGS[".mp4"].codec_options | {"crf": "14"},
    container_options=ENCODINGS[".mp4"].container_options | {"fflags": "+bitexact"},
)
TILES = 4  # a broken clip is cut into TILES x TILES tiles
NOISE = 60.0  # standard deviation of a broken clip's noise, of 255


def write_like(source: Path, clip: Path, output: Path) -> None:
    """`clip` in the size of `source` and lasting as long as it, whatever their numbers of frames."""
    model, video = read_video(source, None), read_video(clip, None)
    frames = [resized(frame, *model.frames.shape[1:3]) for frame in video.frames.numpy()]
    write_video(output, stacked(frames), model.fps * len(frames) / len(model.frames), ENCODING)


def write_broken(source: Path, output: Path, rng: np.random.Generator) -> None:
    """`source` spoiled so that any edit beats it: tiles out of place and noise over them.

    The tiles take new places twice a second: faster, such a clip flashes, and can harm a photosensitive rater.
    """
    video = read_video(source, None)
    held = max(1, round(video.fps / 2))
    orders = [rng.permutation(TILES * TILES) for _ in video.frames[::held]]
    frames = [noisy(shuffled(frame, orders[i // held]), rng) for i, frame in enumerate(video.frames.numpy())]
    write_video(output, stacked(frames), video.fps, ENCODING)


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The frame at another size; the same frame where it has that size."""
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def stacked(frames: list[np.ndarray]) -> UInt8[Tensor, "n H W 3"]:
    """Frames as a video."""
    return torch.from_numpy(np.stack(frames))


def shuffled(frame: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The frame's TILES x TILES tiles in another order; rows and columns that are left over stay."""
    height, width = (size // TILES for size in frame.shape[:2])
    result = frame.copy()
    for place, tile in enumerate(order):
        (y, x), (from_y, from_x) = divmod(place, TILES), divmod(int(tile), TILES)
        result[y * height : (y + 1) * height, x * width : (x + 1) * width] = frame[
            from_y * height : (from_y + 1) * height, from_x * width : (from_x + 1) * width
        ]
    return result


def noisy(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, the same in all three channels."""
    noise = rng.normal(0, NOISE, (*frame.shape[:2], 1))
    return np.clip(frame + noise, 0, 255).astype(np.uint8)
