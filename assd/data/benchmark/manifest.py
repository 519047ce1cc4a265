"""The benchmark's pairs, where their clips lie below the data root, where they are to be had and under which terms."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from assd.data.pairs import DAVIS_FRAMES, davis_masks
from assd.data.video import find_video
from assd.errors import require

MANIFEST_CSV = Path(__file__).with_name("manifest.csv")
SPLITS = {"core": ("core",), "extended": ("core", "ext")}


@dataclass(frozen=True)
class Source:
    """Where the clips of one source are to be had, under which terms, and where they lie below the data root.

    folder  of the source
    frames  below it, of the clips
    """

    folder: str
    to_be_had: str
    terms: str
    frames: str = ""


DAVIS = "DAVIS-2017"
CHANGES_BY_EDIT_TYPE = {
    **dict.fromkeys(("object_swap", "colour", "material", "shape_change"), "object"),
    "background": "background",
    **dict.fromkeys(("style", "multiple"), "everything"),
}
SOURCES = {
    DAVIS: Source(
        "DAVIS",
        "python -m assd.benchmark fetch davis",
        "BSD by its repository's README; see davischallenge.org",
        DAVIS_FRAMES,
    ),
    "LOVEU-TGVE-2023": Source(
        "loveu-tgve-2023",
        "loveu-tgve-2023.zip, linked from github.com/showlab/loveu-tgve-2023; then python -m assd.benchmark import ZIP",
        "Creative Commons, clip by clip",
    ),
    "Shutterstock": Source(
        "shutterstock",
        "license the clip of this number from Shutterstock; then: python -m assd.benchmark import FOLDER",
        "Shutterstock's licence; WebVid itself was withdrawn",
    ),
}


@dataclass(frozen=True)
class Entry:
    """One row of the manifest. `identifier` names the clip within its source."""

    id: str
    source: str
    identifier: str
    source_prompt: str
    target_prompt: str
    edit_type: str
    citation: str

    @property
    def changes(self) -> str:
        """What the target prompt changes, as `Footage` says it."""
        return CHANGES_BY_EDIT_TYPE[self.edit_type]

    @property
    def clip(self) -> str:
        """The clip's own name, by which files are recognised."""
        return self.identifier.rpartition("/")[2]

    def home(self, root: Path) -> Path:
        """Where the clip belongs below the data root; a video file has its suffix besides."""
        source = SOURCES[self.source]
        return root / source.folder / source.frames / self.identifier

    def locate(self, root: Path) -> Path | None:
        """The video file or folder of frames below the data root; None where it is missing."""
        return find_video(self.home(root))

    def masks(self, root: Path) -> Path | None:
        """Annotations of a DAVIS clip, where they lie beside its frames; LOVEU-TGVE's are cut otherwise."""
        return davis_masks(root / SOURCES[DAVIS].folder, self.home(root)) if self.source == DAVIS else None


def manifest(split: str) -> list[Entry]:
    """The entries of a split. Raises InputError for one that isn't there."""
    require(split in SPLITS, f"dataset.split must be one of {', '.join(SPLITS)}; got {split!r}")
    with MANIFEST_CSV.open(newline="", encoding="utf-8") as file:
        entries = [Entry(**row) for row in csv.DictReader(file)]
    return [entry for entry in entries if entry.id.partition("-")[0] in SPLITS[split]]


def data_root(root: str | None) -> Path:
    """The given folder, else the environment's ASSD_DATA, else `data`."""
    return Path(root or os.environ.get("ASSD_DATA") or "data")
