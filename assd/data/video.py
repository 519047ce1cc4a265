"""Video in and out: PyAV for files, folders of frames as they are, uint8 RGB at this edge of the program."""

import contextlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from assd.errors import InputError, require
from assd.files import aside

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".avi", ".mov", ".mkv")
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
FOLDER_FPS = 24.0  # DAVIS's, where a folder of frames states none
CRF = 12  # of H.264: visually lossless
OPENED = {
    "options": {"protocol_whitelist": "file"},  # a playlist that is named like a video asks no other computer
    "metadata_errors": "replace",  # a title may be in any letters
}


@dataclass(frozen=True)
class Video:
    """Frames of one size, and how many of them play in a second."""

    frames: UInt8[Tensor, "n H W 3"]
    fps: float


def find_video(stem: Path) -> Path | None:
    """The video file `stem`.mp4 or the like, or the folder of frames `stem`; None where there is neither."""
    for path in (stem, *(stem.with_name(stem.name + suffix) for suffix in VIDEO_SUFFIXES)):
        if path.is_file() or (path.is_dir() and frame_files(path)):
            return path
    return None


def evenly_spaced(available: int, wanted: int, path: Path) -> list[int]:
    """round(linspace(0, available - 1, wanted)), both ends included."""
    require(
        available >= wanted,
        f"{path} has {available} frames, and {wanted} were asked for: take a longer video, or a smaller num_frames",
    )
    return np.linspace(0, available - 1, wanted).round().astype(int).tolist()


def chosen(available: int, wanted: int | None, first: bool, path: Path) -> list[int]:
    """The numbers of so many frames (None: all), evenly spaced, or the `first` ones."""
    spaced = evenly_spaced(available, wanted or available, path)
    return [*range(len(spaced))] if first else spaced


def read_video(path: Path, num_frames: int | None, first: bool = False) -> Video:
    """`num_frames` evenly spaced frames (None: all) of a video file or of a folder of frames, and their rate.

    first  take the first frames instead

    Frames stand upright, as players show them. Pixels are taken for square: of a file that says otherwise
    (anamorphic), frames are as wide as they are stored.

    Raises InputError when there is no such file, it is no video, or it has fewer frames.
    """
    require(path.exists(), f"{path} does not exist (looked from {Path.cwd()})")
    require(path.is_file() or path.is_dir(), f"{path} is neither a file nor a folder: give one of them")
    frames, fps = (read_folder if path.is_dir() else read_file)(path, num_frames, first)
    require_one_size(frames, path)
    return Video(torch.from_numpy(np.stack(frames)), fps)


def read_file(path: Path, num_frames: int | None, first: bool) -> tuple[list[np.ndarray], float]:
    """Decodes the file once to count its frames, since headers lie, and once to keep the wanted ones."""
    address = str(path.absolute())  # `12:30.mp4` would be taken for a protocol
    try:
        with av.open(address, **OPENED) as container:
            require(bool(container.streams.video), f"{path} holds no video stream")
            rate = container.streams.video[0].average_rate or Fraction(FOLDER_FPS)
            count = sum(1 for _ in container.decode(video=0))
        require(count > 0, f"{path} holds no frame that can be decoded: the file is empty or cut off")
        wanted = chosen(count, num_frames, first, path)
        with av.open(address, **OPENED) as container:
            needed = set(wanted)
            kept = {i: upright(f) for i, f in enumerate(container.decode(video=0)) if i in needed}
    except (av.FFmpegError, UnicodeError) as error:
        said = getattr(error, "strerror", error)
        raise InputError(
            f"{path} can't be read as a video ({said}): it may be cut off, empty, or of another kind. "
            f"Known are {', '.join(VIDEO_SUFFIXES)} and folders of {', '.join(FRAME_SUFFIXES)}"
        ) from error
    require(len(kept) == len(needed), f"{path} is damaged: it gives other frames each time. Get it again")
    return [kept[i] for i in wanted], sampled_rate(float(rate), wanted)


def upright(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """A decoded frame as players show it: phones film lying on their side and note by how much it is to be turned."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def frame_files(path: Path) -> list[Path]:
    """The pictures in a folder by name, in which numbers count as numbers: 2.png comes before 10.png."""
    return sorted((file for file in path.iterdir() if file.suffix.lower() in FRAME_SUFFIXES), key=in_numbers)


def in_numbers(file: Path) -> tuple[list[str | int], str]:
    """What files are sorted by: the name in texts and numbers by turns, then the name itself.

    >>> in_numbers(Path("take2-007.png"))
    (['take', 2, '-', 7, ''], 'take2-007.png')
    """
    parts = re.split(r"(\d+)", file.stem)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], file.name


def read_folder(path: Path, num_frames: int | None, first: bool) -> tuple[list[np.ndarray], float]:
    """Frames numbered in order, with leading zeros, as DAVIS has them, or without."""
    files = frame_files(path)
    require(bool(files), f"{path} holds no frames ({', '.join(FRAME_SUFFIXES)})")
    wanted = chosen(len(files), num_frames, first, path)
    return [in_colour(open_image(files[i])) for i in wanted], sampled_rate(FOLDER_FPS, wanted)


def read_masks(path: Path, num_frames: int) -> Bool[Tensor, "n H W"]:
    """DAVIS annotations, one palette picture a frame: every object counts, index 0 is the background."""
    files = frame_files(path)
    masks = [marked(open_image(files[i])) for i in evenly_spaced(len(files), num_frames, path)]
    require_one_size(masks, path)
    return torch.from_numpy(np.stack(masks))


def marked(mask: Image.Image) -> Bool[np.ndarray, "H W"]:
    """Where a mask is not 0, in whatever channel."""
    values = np.asarray(mask)
    return np.asarray(values.reshape(*values.shape[:2], -1).any(-1))


def require_one_size(frames: list[np.ndarray], path: Path) -> None:
    """Raises InputError unless all frames have the same shape."""
    shapes = sorted({frame.shape for frame in frames})
    require(len(shapes) == 1, f"the frames in {path} differ in size ({shapes}): give one video per folder")


def open_image(path: Path) -> Image.Image:
    """An image file, upright as its EXIF says, or an InputError that names it."""
    require(path.is_file(), f"{path} is no file: a folder of frames holds pictures alone")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} claims to be larger than any frame ({error}): give smaller frames") from error
    except Exception as error:  # decoders' own errors have no common ancestor
        raise InputError(f"{path} can't be read as an image ({error}): get it again") from error
    with contextlib.suppress(Exception):  # EXIF that is damaged turns nothing, as in viewers
        ImageOps.exif_transpose(image, in_place=True)
    return image


def in_colour(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as RGB bytes; of grey in 16 bits, which Pillow clips at 255, as its players show it."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def sampled_rate(fps: float, wanted: list[int]) -> float:
    """The rate at which frames of these numbers last as long as from the first to the last of them in the video."""
    return fps * (len(wanted) - 1) / (wanted[-1] - wanted[0]) if len(wanted) > 1 else fps


@dataclass(frozen=True)
class Encoding:
    """How a file of one kind is written: codec, pixel format, sides in multiples of `multiple`."""

    codec: str
    pixels: str
    multiple: int
    codec_options: dict[str, str]
    container_options: dict[str, str]


ENCODINGS = {
    # what every browser plays; libx264's macroblock tree reads memory that nobody wrote: other bits each time
    ".mp4": Encoding("libx264", "yuv420p", 2, {"crf": str(CRF), "x264-params": "mbtree=0"}, {"movflags": "+faststart"}),
    # every bit of every frame; the container otherwise gets a random number
    ".mkv": Encoding("ffv1", "bgr0", 1, {}, {"fflags": "+bitexact"}),
}


def write_video(path: Path, frames: UInt8[Tensor, "n H W 3"], fps: float, encoding: Encoding | None = None) -> None:
    """As the suffix says unless told: .mp4 is H.264 for people, .mkv is FFV1, without loss. Written aside and renamed.

    An mp4 of odd size loses one row or column.
    """
    encoding = encoding or ENCODINGS[path.suffix]
    height, width = (size // encoding.multiple * encoding.multiple for size in frames.shape[1:3])
    with aside(path) as partial, av.open(str(partial), "w", options=encoding.container_options) as container:
        stream = container.add_stream(encoding.codec, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixels
        stream.options = encoding.codec_options
        for frame in frames[:, :height, :width].contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_frames(folder: Path, frames: Iterable[Tensor]) -> None:
    """PNG files 00000.png, 00001.png, ... of (H, W, 3) bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame.numpy()).save(folder / f"{i:05d}.png")


def to_pixels(frames: UInt8[Tensor, "n H W 3"], height: int, width: int) -> Float[Tensor, "n 3 h w"]:
    """Bytes to pixels in [-1, 1] at the model's size: the aspect ratio is kept, the centre cropped."""
    return fill(rearrange(frames, "n H W c -> n c H W").float() / 127.5 - 1, height, width).clamp(-1, 1)


def fill(
    frames: Float[Tensor, "n c H W"], height: int, width: int, interpolation: str = "bilinear"
) -> Float[Tensor, "n c h w"]:
    """Resized to cover height x width, antialiased, then centre-cropped; untouched where the size fits already."""
    old_height, old_width = frames.shape[-2:]
    scale = max(height / old_height, width / old_width)
    size = [max(height, int(old_height * scale)), max(width, int(old_width * scale))]  # as torchvision cuts it
    resized = v2.functional.resize(frames, size, v2.InterpolationMode(interpolation), antialias=True)
    return v2.functional.center_crop(resized, [height, width])


def fill_masks(masks: Bool[Tensor, "n H W"], height: int, width: int) -> Bool[Tensor, "n h w"]:
    """Masks resized and cropped as `fill` does it: a pixel counts where at least half of it did."""
    return fill(masks[:, None].float(), height, width)[:, 0] >= 0.5


def stretch(
    frames: UInt8[Tensor, "n H W c"], height: int, width: int, interpolation: str = "bicubic"
) -> UInt8[Tensor, "n h w c"]:
    """Resized to height x width whatever the aspect ratio, antialiased and rounded as Pillow does it."""
    if frames.shape[1:3] == (height, width):
        return frames
    mode = v2.InterpolationMode(interpolation)
    resized = v2.functional.resize(rearrange(frames, "n H W c -> n c H W"), [height, width], mode, antialias=True)
    return rearrange(resized, "n c h w -> n h w c").contiguous()


def to_bytes(frames: Float[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n H W 3"]:
    """Pixels in [-1, 1] to bytes, rounded."""
    return rearrange(((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8), "n c H W -> n H W c").contiguous()
