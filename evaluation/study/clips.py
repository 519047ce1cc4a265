"""Clips for the page: all of one pair in one size and length, encoded alike, with nothing in them that names a run.

Frames are lists of uint8 RGB arrays (H, W, 3).
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from assd.errors import InputError

CRF = "14"  # of H.264: a rater sees no trace of it
TILES = 4  # a broken clip is cut into TILES x TILES tiles
NOISE = 60.0  # standard deviation of a broken clip's noise, of 255

Frames = list[np.ndarray]


def read_frames(path: Path, size: tuple[int, int] | None = None) -> tuple[Frames, float]:
    """All frames, brought to `size` (height, width) where one is given, and how many of them play in a second."""
    try:
        with av.open(str(path)) as container:
            rate = float(container.streams.video[0].average_rate or 24)
            shape = {} if size is None else {"height": size[0], "width": size[1], "interpolation": "BICUBIC"}
            frames = [frame.to_ndarray(format="rgb24", **shape) for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path} can't be read as a video ({error})") from error
    return frames, rate


def write_frames(path: Path, frames: Frames, fps: float) -> None:
    """H.264 that every browser plays, without any metadata of the file it came from. Odd sizes lose one line."""
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": CRF}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_like(source: Path, clip: Path, output: Path) -> None:
    """`clip` in the size of `source` and lasting as long as it, whatever their numbers of frames."""
    model, fps = read_frames(source)
    frames, _ = read_frames(clip, model[0].shape[:2])
    write_frames(output, frames, fps * len(frames) / len(model))


def write_broken(source: Path, output: Path, rng: np.random.Generator) -> None:
    """`source` spoiled so that any edit beats it: tiles out of place and noise over them.

    The tiles take new places twice a second: faster, such a clip flashes, and can harm a photosensitive rater.
    """
    frames, fps = read_frames(source)
    held = max(1, round(fps / 2))
    orders = [rng.permutation(TILES * TILES) for _ in frames[::held]]
    write_frames(output, [noisy(shuffled(frame, orders[i // held]), rng) for i, frame in enumerate(frames)], fps)


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
