"""FiVE-Bench (Li et al., ICCV 2025) as it is published: its manifests, frames and masks become text-video pairs.

    <root>/edit_prompt/edit1_FiVE.json   to edit6_FiVE.json: a list of edits for each of the six edit types
    <root>/images/<video>/00001.jpg ...  the frames
    <root>/bmasks/<video>/00001.jpg ...  the object's masks, under the frames' names: the object is where they are not 0

FiVE takes a video's first frames, not evenly spaced ones, and brings them to a model's size by stretching.
"""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from assd.data.pairs import Canvas, Footage, Prompts, TextVideoPair, portion
from assd.data.video import (
    FOLDER_FPS,
    frame_files,
    in_colour,
    marked,
    open_image,
    require_one_size,
    stretch,
    to_pixels,
)
from assd.errors import InputError, require

EDIT_TYPES = {
    1: "rigid object replacement",
    2: "non-rigid object replacement",
    3: "colour alteration",
    4: "material modification",
    5: "object addition",
    6: "object removal",
}
MANIFEST = "edit_prompt/edit{}_FiVE.json"
FRAMES, MASKS = "images", "bmasks"
TEXTS = ("video_name", "source_prompt", "target_prompt", "save_dir")
KEYS = (*TEXTS, "editing_type_id")
UNPACKED = "dataset.root must be FiVE-Bench's folder, with edit_prompt and the unpacked images.zip and bmasks.zip"


@dataclass(frozen=True)
class Entry:
    """One edit of a manifest.

    edit_type  1 to 6: the manifest's
    number     its place in the manifest, from 1
    video      the name of the video
    save_dir   where FiVE's code looks for the edit, below a folder named after the video
    """

    edit_type: int
    number: int
    video: str
    prompts: Prompts
    save_dir: str

    @property
    def id(self) -> str:
        """Names the pair: `edit2-007-0011_lucia`."""
        return f"edit{self.edit_type}-{self.number:03d}-{self.video}"

    @property
    def home(self) -> Path:
        """The folder of the edited frames in FiVE's layout."""
        return Path(self.video) / self.save_dir


def edit_type_of(pair: str) -> int | None:
    """The edit type of a pair by its id; None for a pair of another dataset."""
    found = re.match(r"edit([1-6])-\d{3,}-", pair)
    return int(found[1]) if found else None


def five(
    root: str,
    num_frames: int,
    height: int | None = None,
    width: int | None = None,
    edit_types: Sequence[int] = tuple(EDIT_TYPES),
    limit: int | None = None,
    shard: str | None = None,
) -> list[TextVideoPair]:
    """The pairs of the chosen edit types, each of a video's first `num_frames` frames.

    height, width  at which edits are scored; None: the source's own size, as published

    Raises InputError for a manifest, a video or masks that are missing or damaged.
    """
    require((height is None) == (width is None), "dataset.height and dataset.width must both be given, or both be null")
    folder = Path(root)
    entries = portion(manifest(folder, edit_types), limit, shard)
    for part in (FRAMES, MASKS):
        missing = sorted({entry.video for entry in entries if not (folder / part / entry.video).is_dir()})
        require(not missing, f"{folder / part} has no folder {', '.join(missing)}: {UNPACKED}")
    pairs = []
    for entry in entries:
        own_height, own_width = own_size(folder, entry.video)
        canvas = Canvas(num_frames, height or own_height, width or own_width)
        read = functools.partial(read_entry, folder, entry.video)
        pairs.append(TextVideoPair(entry.id, entry.prompts, read, entry.video, canvas))
    return pairs


def manifest(root: Path, edit_types: Sequence[int] = tuple(EDIT_TYPES)) -> list[Entry]:
    """The edits of these types, in the manifests' order. Raises InputError."""
    unknown = [str(edit_type) for edit_type in edit_types if edit_type not in EDIT_TYPES]
    require(not unknown and bool(edit_types), f"dataset.edit_types must be some of 1 to 6; got {list(edit_types)}")
    return [entry for edit_type in edit_types for entry in read_manifest(root, edit_type)]


def read_manifest(root: Path, edit_type: int) -> list[Entry]:
    """The edits of one type. As in FiVE's code, one whose editing_type_id is not 1 to 6 is left out."""
    file = root / MANIFEST.format(edit_type)
    require(file.is_file(), f"{file} does not exist: {UNPACKED}")
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON, or a damaged one ({error}): get it again") from error
    require(isinstance(items, list), f"{file} must hold a list of edits, and holds something else: get it again")
    for number, item in enumerate(items, start=1):
        check_item(f"{file}, edit {number}", item)
    known = {str(edit_type) for edit_type in EDIT_TYPES}
    return [
        Entry(edit_type, number, item["video_name"], Prompts(*map(plain, prompts_of(item))), item["save_dir"])
        for number, item in enumerate(items, start=1)
        if str(item["editing_type_id"]) in known
    ]


def check_item(where: str, item: object) -> None:
    """Raises InputError unless an item of a manifest has what an edit needs, and leads to no other folder."""
    require(isinstance(item, dict), f"{where} must have the keys {', '.join(KEYS)}, and is something else")
    assert isinstance(item, dict)
    missing = [key for key in KEYS if key not in item]
    require(not missing, f"{where} lacks {', '.join(missing)}: it must have the keys {', '.join(KEYS)}")
    other = [key for key in TEXTS if not isinstance(item[key], str)]
    require(not other, f"{where}: {', '.join(other)} must be text")
    empty = [key for key in TEXTS[:3] if not item[key].strip()]
    require(not empty, f"{where}: {', '.join(empty)} is empty")
    video, below = PurePosixPath(item["video_name"]), PurePosixPath(item["save_dir"])
    require(
        len(video.parts) == 1 and not {"..", "/"} & {*video.parts, *below.parts} and "\0" not in f"{video}{below}",
        f"{where}: video_name must be a plain name and save_dir a folder below it; got {str(video)!r}, {str(below)!r}",
    )


def prompts_of(item: dict) -> tuple[str, str]:
    """Source and target prompt, as they stand."""
    return item["source_prompt"], item["target_prompt"]


def plain(prompt: str) -> str:
    """A prompt without the brackets that set off what changes."""
    return prompt.replace("[", "").replace("]", "")


def own_size(root: Path, video: str) -> tuple[int, int]:
    """Height and width of a video's first frame."""
    (first,) = first_frames(root / FRAMES / video, 1)
    width, height = open_image(first).size
    return height, width


def first_frames(folder: Path, count: int) -> list[Path]:
    """The first so many pictures of a folder. Raises InputError where it has fewer."""
    files = frame_files(folder)
    require(
        len(files) >= count,
        f"{folder} has {len(files)} frames, and the first {count} were asked for: take a smaller dataset.num_frames",
    )
    return files[:count]


def read_entry(root: Path, video: str, canvas: Canvas) -> Footage:
    """A video's first frames and their masks, stretched to a canvas. Raises InputError."""
    files = first_frames(root / FRAMES / video, canvas.num_frames)
    pictures = [in_colour(open_image(file)) for file in files]
    require_one_size(pictures, root / FRAMES / video)
    frames: UInt8[Tensor, "n H W 3"] = torch.from_numpy(np.stack(pictures))
    height, width = canvas.height, canvas.width
    masks = stretch(read_object(root / MASKS / video, files)[..., None].byte(), height, width, "nearest-exact")
    pixels = to_pixels(stretch(frames, height, width), height, width)
    return Footage(pixels, FOLDER_FPS, masks[..., 0].bool(), stretch=True, first=True)


def read_object(folder: Path, frames: Sequence[Path]) -> Bool[Tensor, "n H W"]:
    """The object's masks of these frames. Raises InputError for a frame that has none."""
    by_name = {file.stem: file for file in frame_files(folder)}
    missing = [frame.stem for frame in frames if frame.stem not in by_name]
    require(not missing, f"{folder} has no mask for frame {', '.join(missing)}: unpack FiVE-Bench's bmasks.zip again")
    masks = [marked(open_image(by_name[frame.stem])) for frame in frames]
    require_one_size(masks, folder)
    return torch.from_numpy(np.stack(masks))
