"""The benchmark as a dataset: a list of text-video pairs, of which some clips may not be here."""

import functools
from pathlib import Path

from assd.data.benchmark.manifest import SOURCES, Entry, data_root, manifest
from assd.data.pairs import Canvas, Footage, Prompts, TextVideoPair, file_footage, portion
from assd.errors import NotHereError, require


def benchmark(
    root: str | None,
    split: str,
    num_frames: int,
    height: int,
    width: int,
    limit: int | None = None,
    shard: str | None = None,
) -> list[TextVideoPair]:
    """The benchmark's pairs as a dataset. One whose clip is missing raises NotHereError when it is read.

    Raises InputError when no clip at all is there.
    """
    folder, entries = data_root(root), manifest(split)
    require(
        any(entry.locate(folder) for entry in entries),
        f"no clip of the benchmark is in {folder.resolve()}: `python -m assd.benchmark status` says where they are to "
        f"be had. The environment variable ASSD_DATA, or dataset.root, names another folder",
    )
    pairs = []
    for entry in portion(entries, limit, shard):
        read = functools.partial(read_entry, entry, folder)
        prompts, canvas = Prompts(entry.source_prompt, entry.target_prompt), Canvas(num_frames, height, width)
        pairs.append(TextVideoPair(f"{entry.id}-{entry.clip}", prompts, read, entry.identifier, canvas))
    return pairs


def read_entry(entry: Entry, root: Path, canvas: Canvas) -> Footage:
    """The clip of one entry, with DAVIS's masks where they lie beside it. Raises NotHereError and InputError."""
    path = entry.locate(root)
    if path is None:
        raise NotHereError(
            f"{entry.source} clip {entry.identifier} is not in {root}: {SOURCES[entry.source].to_be_had}"
        )
    return file_footage(path, entry.masks(root), entry.changes, canvas)
