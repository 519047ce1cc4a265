"""Clips that somebody got elsewhere, sorted into the data root by their names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from assd.data.benchmark.fetch import unpacked
from assd.data.benchmark.manifest import DAVIS, SOURCES, Entry, manifest
from assd.data.pairs import DAVIS_MASKS, davis_masks
from assd.data.video import VIDEO_SUFFIXES, frame_files, read_video
from assd.errors import InputError, require


def import_clips(root: Path, path: Path) -> list[str]:
    """Sorts the benchmark's clips found in a folder or zip into the data root, by name; returns what was taken.

    A file `<clip>.mp4` or the like, or a folder of frames `<clip>`, is the clip; of Shutterstock the name may have more
    around the number. Of DAVIS it is the folder below `JPEGImages` where there is one, with its masks, the one of 480p
    first. Clips that are already here stay as they are.

    Raises InputError, when the others are taken, for what has the name of a clip and can't be read as one.
    """
    path = path.resolve()
    require(path.exists(), f"{path} does not exist: give a folder of clips, or a zip file of them")
    if path.is_file():
        with unpacked(path, root) as folder:
            return import_clips(root, folder)
    found: dict[str, list[Path]] = {}
    for clip in clips_below(path):
        for name in names_of(clip):
            found.setdefault(name, []).append(clip)
    taken, refused = [], {}
    for entry in manifest("extended"):
        clips = [clip for clip in found.get(entry.clip, []) if belongs(clip, entry)]
        if entry.locate(root) or not clips:
            continue
        clip = max(clips, key=lambda clip: ("JPEGImages" in clip.parts, "480p" in clip.parts))
        try:
            read_video(clip, 1)
        except InputError as error:
            refused[clip] = str(error)
            continue
        if entry.source == DAVIS and "JPEGImages" in clip.parts and (masks := davis_masks(clip.parents[2], clip)):
            place(masks, root / SOURCES[DAVIS].folder / DAVIS_MASKS / entry.identifier)  # before the clip is there
        home = entry.home(root)
        place(clip, home if clip.is_dir() else home.with_name(home.name + clip.suffix.lower()))
        taken.append(entry.identifier)
    require(
        not refused,
        f"taken: {', '.join(taken) or 'nothing'}. These have the name of a clip and can't be read, so get them again: "
        f"{'; '.join(refused.values())}",
    )
    return taken


def belongs(clip: Path, entry: Entry) -> bool:
    """Whether a clip of the right name is of the right source: LOVEU-TGVE cuts DAVIS's otherwise, in DAVIS_480p."""
    return ("DAVIS_480p" if entry.source == DAVIS else "JPEGImages") not in clip.parts


def place(original: Path, goal: Path) -> None:
    """A file or folder, copied under another name and renamed: half of one never looks like a clip.

    One that is already there stays.
    """
    if goal.exists():
        return
    goal.parent.mkdir(parents=True, exist_ok=True)
    partial = goal.with_name(goal.name + ".partial")
    if partial.is_dir():
        shutil.rmtree(partial)
    (shutil.copytree if original.is_dir() else shutil.copyfile)(original, partial)
    partial.replace(goal)


def clips_below(path: Path) -> Iterator[Path]:
    """Video files and folders of frames, but no folders of masks."""
    for below in sorted(path.rglob("*")):
        is_clip = below.is_dir() and "Annotations" not in below.parts and frame_files(below)
        if is_clip or below.suffix.lower() in VIDEO_SUFFIXES:
            yield below


def names_of(clip: Path) -> set[str]:
    """What a clip may be called in the manifest: its own name, or a number within it."""
    stem = clip.name if clip.is_dir() else clip.stem
    numbers = {part for part in stem.replace("_", "-").split("-") if part.isdigit() and len(part) > 5}
    return {stem, *numbers}
