"""Pictures of an edit: a filmstrip, a side-by-side video, and an overview of a run."""

import functools
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from assd.data.pairs import Prompts
from assd.files import aside

INK, PAPER, QUIET = (24, 26, 32), (255, 255, 255), (110, 116, 128)
PANEL_HEIGHT = 96  # of a frame in a filmstrip
VIDEO_HEIGHT = 256  # of a frame in a side-by-side video
MOST_PANELS = 8
GAP, LABEL_WIDTH, LINE = 4, 84, 20


def filmstrip(prompts: Prompts, rows: dict[str, UInt8[Tensor, "n H W 3"]]) -> Image.Image:
    """Prompts above, then one row of frames per video: source, edited, (true edit), and |edited - source|."""
    return sheet(prompts, rows | {"difference": difference(rows["edited"], rows["source"])})


def sheet(
    prompts: Prompts, rows: dict[str, UInt8[Tensor, "_ H W 3"]], height: int = PANEL_HEIGHT, most: int = MOST_PANELS
) -> Image.Image:
    """Prompts above, then one labelled row per video: at most so many evenly spaced frames, so many pixels high."""
    panels = {label: [enlarged(frame, height) for frame in spread(video, most)] for label, video in rows.items()}
    count = max(map(len, panels.values()))
    width, height = next(iter(panels.values()))[0].size
    left = round(max(LABEL_WIDTH, *(font().getlength(label) + 3 * GAP for label in rows)))
    picture = Image.new("RGB", (left + count * (width + GAP), 2 * LINE + GAP + len(panels) * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(picture)
    for line, (label, prompt) in enumerate(zip(("source", "target"), prompts)):
        pen.text((GAP, line * LINE), label, QUIET, font())
        pen.text((left, line * LINE), shortened(prompt, picture.width - left), INK, font())
    for row, (label, images) in enumerate(panels.items()):
        top = 2 * LINE + GAP + row * (height + GAP)
        pen.text((GAP, top + height // 2 - LINE // 2), label, QUIET, font())
        for column, image in enumerate(images):
            picture.paste(image, (left + column * (width + GAP), top))
    return picture


def spread(video: UInt8[Tensor, "n H W 3"], most: int) -> UInt8[Tensor, "m H W 3"]:
    """At most so many evenly spaced frames."""
    return video[np.linspace(0, len(video) - 1, min(len(video), most)).round().astype(int).tolist()]


def difference(a: UInt8[Tensor, "n H W 3"], b: UInt8[Tensor, "n H W 3"]) -> UInt8[Tensor, "n H W 3"]:
    """|a - b|."""
    return (a.int() - b.int()).abs().to(torch.uint8)


def side_by_side(videos: dict[str, UInt8[Tensor, "n H W 3"]]) -> UInt8[Tensor, "n h w 3"]:
    """The videos beside each other, playing in step, each under its name."""
    frames = []
    for i in range(len(next(iter(videos.values())))):
        images = [enlarged(video[i], VIDEO_HEIGHT) for video in videos.values()]
        width, height = images[0].size
        sheet = Image.new("RGB", (len(images) * (width + GAP) - GAP, height + LINE + GAP), PAPER)
        pen = ImageDraw.Draw(sheet)
        for column, (label, image) in enumerate(zip(videos, images)):
            pen.text((column * (width + GAP) + GAP, 1), label, INK, font())
            sheet.paste(image, (column * (width + GAP), LINE + GAP))
        frames.append(torch.from_numpy(np.array(sheet)))
    return torch.stack(frames)


def stack(images: list[Image.Image], columns: int = 2) -> Image.Image:
    """Pictures in columns on one sheet."""
    columns = min(columns, len(images))
    width, height = max(i.width for i in images) + 16, max(i.height for i in images) + 16
    whole = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), PAPER)
    for i, image in enumerate(images):
        whole.paste(image, (i % columns * width + 8, i // columns * height + 8))
    return whole


def grid(frames: UInt8[Tensor, "b H W 3"], columns: int) -> Image.Image:
    """Frames row by row."""
    return Image.fromarray(rearrange(frames, "(row column) H W c -> (row H) (column W) c", column=columns).numpy())


def enlarged(frame: UInt8[Tensor, "H W 3"], height: int) -> Image.Image:
    """A frame as a picture of this height."""
    image = Image.fromarray(frame.numpy())
    return image.resize((round(image.width * height / image.height), height), Image.Resampling.BICUBIC)


def shortened(text: str, width: int) -> str:
    """The text, ended by an ellipsis where it is wider than so many pixels."""
    if font().getlength(text) <= width:
        return text
    while text and font().getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@functools.cache
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own."""
    return ImageFont.load_default(14)


def save(image: Image.Image, path: Path) -> None:
    """A PNG file."""
    with aside(path) as partial:
        image.save(partial, optimize=True)
