"""Text-video pairs: what is edited. A dataset is a list of them; frames are read when their pair's turn comes."""

import csv
import functools
import io
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from jaxtyping import Bool, Float
from torch import Tensor

from assd.data.video import fill_masks, frame_files, read_masks, read_video, to_pixels
from assd.errors import InputError, require

log = logging.getLogger(__name__)


class Prompts(NamedTuple):
    """y describes the source video, y* (`target`) the video that is asked for."""

    source: str
    target: str


CHANGES = ("object", "background", "everything")


@dataclass(frozen=True)
class Canvas:
    """The length and size at which a video is edited or scored, in frames and pixels."""

    num_frames: int
    height: int
    width: int

    def __post_init__(self):
        require(
            min(self.num_frames, self.height, self.width) >= 1, f"num_frames, height and width must be >= 1; got {self}"
        )

    def __str__(self) -> str:
        return f"{self.num_frames} frames of {self.width} x {self.height}"


@dataclass(frozen=True)
class Footage:
    """A source video on a canvas, and what is known of it.

    frames   pixels in [-1, 1]
    fps      frames per second at which `frames` last as long as the original
    masks    the object's mask, where the dataset has one; where the true edit is known, united with the object's there
    truth    the true edit, where it is known (the embedded world)
    changes  what the target prompt changes: `object`, `background` or `everything`. What is to stay follows from it
    asked    in the embedded world, the attributes that the edit gives a new value, such as {"colour": "green"}; else
             None: nobody can read them off the pixels
    bystander  the mask of a second object, which no prompt names and no edit may touch, where the video has one
    flow     the true optical flow from each frame to the next, in pixels (x, y), where it is known; m = n - 1
    stretch  whether the video was brought to the canvas by stretching, as edits then are too; else it was cropped
    first    whether these are the video's first frames, as an edit's then are too; else they are evenly spaced
    """

    frames: Float[Tensor, "n 3 H W"]
    fps: float
    masks: Bool[Tensor, "n H W"] | None = None
    truth: Float[Tensor, "n 3 H W"] | None = None
    changes: str = "object"
    asked: dict[str, str] | None = None
    bystander: Bool[Tensor, "n H W"] | None = None
    flow: Float[Tensor, "m 2 H W"] | None = None
    stretch: bool = False
    first: bool = False


@dataclass(frozen=True)
class TextVideoPair:
    """A video and its prompts.

    id       names the pair in the run directory
    read     the video on a canvas; raises InputError, of which NotHereError leaves the pair out without being a failure
    clip     the source video's name, which seeds the noise: edits of one clip see the same
    canvas   the canvas on which edits by all methods are scored; a method may edit on another one
    options  what a method may want to know of this edit alone, such as {"blend_words": "jeep"}
    """

    id: str
    prompts: Prompts
    read: Callable[[Canvas], Footage]
    clip: str
    canvas: Canvas
    options: dict[str, str] = field(default_factory=dict)


def file_footage(path: Path, masks: Path | None, changes: str, canvas: Canvas) -> Footage:
    """A video file or a folder of frames; `masks` a folder of DAVIS annotations."""
    count, height, width = canvas.num_frames, canvas.height, canvas.width
    source = read_video(path, count)
    fitted = fill_masks(read_masks(masks, count), height, width) if masks else None
    return Footage(to_pixels(source.frames, height, width), source.fps, fitted, changes=changes)


def video(
    path: str, source_prompt: str, target_prompt: str, num_frames: int, height: int, width: int
) -> list[TextVideoPair]:
    """One's own video: a file or a folder of frames."""
    require("\0" not in path, f"dataset.path must be a path, and {path!r} holds NUL: take it out")
    prompts = Prompts(source_prompt, target_prompt)
    read = functools.partial(file_footage, Path(path), None, "object")
    name = Path(path).resolve().stem or "video"
    return [TextVideoPair(name, prompts, read, name, Canvas(num_frames, height, width))]


PROMPTS_CSV = "prompts.csv"
COLUMNS = ("video", "source_prompt", "target_prompt")
LONGEST_NAME = 240  # of a file, in bytes; a pair's folder has the row's number besides
DAVIS_FRAMES, DAVIS_MASKS = "JPEGImages/480p", "Annotations/480p"


def folder(
    path: str, num_frames: int, height: int, width: int, limit: int | None = None, shard: str | None = None
) -> list[TextVideoPair]:
    """A directory of videos with `prompts.csv`: columns video, source_prompt, target_prompt, one row an edit.

    `video` is a file or a folder of frames below `path`. Of DAVIS, `path` may be the root: `video` is then a sequence's
    name, its frames lie in JPEGImages/480p/<name> and its masks in Annotations/480p/<name>. A column `changes` may say
    what an edit changes, `object` (where it is empty), `background` or `everything`, for the metrics that use masks.
    Any other column is an option of the edit, which the methods that know its name read.
    """
    root = Path(path)
    rows = read_rows(root / PROMPTS_CSV)
    canvas = Canvas(num_frames, height, width)
    return [row_pair(root, *row, canvas) for row in portion([*enumerate(rows, start=1)], limit, shard)]


def read_rows(table: Path) -> list[dict[str, str]]:
    """The rows of `prompts.csv`, each whole. Raises InputError, which names the file and the row."""
    require(table.is_file(), f"{table} does not exist: it must have the columns {', '.join(COLUMNS)}, one row an edit")
    content = table.read_bytes()
    try:
        lines = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = list(lines)
    except UnicodeDecodeError as error:
        where = content.count(b"\n", 0, error.start) or "of column names"
        raise InputError(f"{table}, row {where}: its letters are not in UTF-8; save the table as UTF-8") from error
    except csv.Error as error:
        raise InputError(f'{table}, line {lines.line_num}: {error}; is a quote (") never closed?') from error
    require(bool(rows), f"{table} has no rows: it must have the columns {', '.join(COLUMNS)}, one row an edit")
    for number, row in enumerate(rows, start=1):
        check_row(f"{table}, row {number}", row)
    return rows


def check_row(where: str, row: dict[str, str]) -> None:
    """Raises InputError unless a row of `prompts.csv` has what an edit needs, and no more cells than columns."""
    require(None not in row, f"{where} has more cells than there are columns: put texts with commas in quotes")
    empty = [name for name in COLUMNS if not row.get(name)]
    require(not empty, f"{where}: {', '.join(empty)} is empty or missing, of {', '.join(COLUMNS)}")
    require("\0" not in "".join(filter(None, row.values())), f"{where} holds the character NUL: take it out")
    longest = max((len(os.fsencode(part)) for part in Path(row["video"]).parts), default=0)
    require(
        longest <= LONGEST_NAME,
        f"{where}: the video's name is {longest} bytes long, and {LONGEST_NAME} is the most: give it a shorter name",
    )


Entry = TypeVar("Entry")


def portion(entries: Sequence[Entry], limit: int | None, shard: str | None) -> list[Entry]:
    """The first `limit` entries of a dataset (None: all), and of these the part that one of several jobs takes.

    shard  `i/n`: the i-th of n jobs, from 1, takes the entries number i, i + n, i + 2n, ...; None takes all

    >>> portion("abcdefg", 5, "2/3")
    ['b', 'e']

    Raises InputError for another limit or shard.
    """
    require(limit is None or limit >= 1, f"dataset.limit must be >= 1, or null for all pairs; got {limit}")
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", shard or "1/1")
    require(
        found is not None and int(found[1]) <= int(found[2]),
        f"dataset.shard must be i/n, job number i of n, such as 2/4, or null for all pairs; got {shard!r}",
    )
    assert found
    return list(entries[:limit])[int(found[1]) - 1 :: int(found[2])]


def row_pair(root: Path, number: int, row: dict[str, str], canvas: Canvas) -> TextVideoPair:
    """The pair of one row of `prompts.csv`; its id is the row's number and the video's name.

    Raises InputError where it says of something unknown that it changes.
    """
    changes = row.get("changes") or "object"
    require(
        changes in CHANGES,
        f"{root / PROMPTS_CSV}, row {number}: changes must be one of {', '.join(CHANGES)}; got {changes!r}",
    )
    prompts = Prompts(row["source_prompt"], row["target_prompt"])
    source, davis = root / row["video"], root / DAVIS_FRAMES / row["video"]
    if not source.exists() and davis.is_dir():
        source = davis
    read = functools.partial(file_footage, source, davis_masks(root, source), changes)
    options = {key: value for key, value in row.items() if key not in (*COLUMNS, "changes") and value}
    return TextVideoPair(f"{number:02d}-{source.stem}", prompts, read, row["video"], canvas, options)


def davis_masks(root: Path, frames: Path) -> Path | None:
    """DAVIS's annotations of a folder of frames below its root; None where there are none, or not one a frame."""
    annotations = root / DAVIS_MASKS / frames.name
    if not (frames.is_dir() and annotations.is_dir()):
        return None
    count, annotated = len(frame_files(frames)), len(frame_files(annotations))
    if count != annotated:
        log.warning("%s has %d masks for %d frames: they are left out", annotations, annotated, count)
    return annotations if count == annotated else None
