"""The benchmark of real videos, 30 core pairs and 57 more: `python -m assd.benchmark status|fetch|import`.

It is not the paper's own list of 30, which was never published. The clips are other people's: this program says what
is here and where the rest is to be had, fetches DAVIS-2017, and sorts in what was got elsewhere.
"""

import argparse
import csv
import functools
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from assd.data import DAVIS_FRAMES, DAVIS_MASKS, Footage, Prompts, TextVideoPair, check_limit, davis_masks, file_footage
from assd.errors import InputError, NotHereError, one_sentence, require
from assd.video import VIDEO_SUFFIXES, frame_files

MANIFEST = Path(__file__).with_name("benchmark.csv")
SPLITS = {"core": ("core",), "extended": ("core", "ext")}
DAVIS_URL = "https://data.vision.ee.ethz.ch/jpont/davis/DAVIS-2017-trainval-480p.zip"
CHUNK = 1 << 20  # bytes read at once

console = Console()


@dataclass(frozen=True)
class Source:
    """Where the clips of one source lie below the data root, where they are to be had, and under which terms."""

    folder: str
    to_be_had: str
    terms: str


SOURCES = {
    "DAVIS-2017": Source(
        "DAVIS", "python -m assd.benchmark fetch davis", "BSD by its repository's README; see davischallenge.org"
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
    def clip(self) -> str:
        """The clip's own name, by which files are recognised."""
        return self.identifier.rpartition("/")[2]

    def home(self, root: Path) -> Path:
        """Where the clip belongs below the data root; a video file has its suffix besides."""
        return (
            root / SOURCES[self.source].folder / (DAVIS_FRAMES if self.source == "DAVIS-2017" else "") / self.identifier
        )

    def locate(self, root: Path) -> Path | None:
        """The video file or folder of frames below the data root; None where it is missing."""
        home = self.home(root)
        for path in (home, *(home.with_suffix(suffix) for suffix in VIDEO_SUFFIXES)):
            if path.is_file() or (path.is_dir() and frame_files(path)):
                return path
        return None


def manifest(split: str) -> list[Entry]:
    """The entries of a split. Raises InputError for one that isn't there."""
    require(split in SPLITS, f"dataset.split must be one of {', '.join(SPLITS)}; got {split!r}")
    with MANIFEST.open(newline="", encoding="utf-8") as file:
        entries = [Entry(**row) for row in csv.DictReader(file)]
    return [entry for entry in entries if entry.id.partition("-")[0] in SPLITS[split]]


def data_root(root: str | None) -> Path:
    """The given folder, else the environment's ASSD_DATA, else `data`."""
    return Path(root or os.environ.get("ASSD_DATA") or "data")


def benchmark(
    root: str | None, split: str, num_frames: int, height: int, width: int, limit: int | None = None
) -> list[TextVideoPair]:
    """The benchmark's pairs as a dataset. One whose clip is missing raises NotHereError when it is read.

    Raises InputError when no clip at all is there.
    """
    check_limit(limit)
    folder, entries = data_root(root), manifest(split)[:limit]
    require(
        any(entry.locate(folder) for entry in entries),
        f"no clip of the benchmark is in {folder.resolve()}: `python -m assd.benchmark status` says where they are to "
        f"be had. The environment variable ASSD_DATA, or dataset.root, names another folder",
    )
    pairs = []
    for entry in entries:
        read = functools.partial(read_entry, entry, folder, num_frames, height, width)
        prompts = Prompts(entry.source_prompt, entry.target_prompt)
        pairs.append(TextVideoPair(f"{entry.id}-{entry.clip}", prompts, read, clip=entry.identifier))
    return pairs


def read_entry(entry: Entry, root: Path, num_frames: int, height: int, width: int) -> Footage:
    """The clip of one entry, with DAVIS's masks where they lie beside it. Raises NotHereError and InputError."""
    path = entry.locate(root)
    if path is None:
        raise NotHereError(
            f"{entry.source} clip {entry.identifier} is not in {root}: {SOURCES[entry.source].to_be_had}"
        )
    return file_footage(path, davis_masks(root / SOURCES["DAVIS-2017"].folder, path), num_frames, height, width)


def status(root: Path, split: str) -> None:
    """Prints what is present, and for what is missing where it is to be had."""
    table = Table("pair", "clip", "source", "edit", "here", title=f"data root: {root.resolve()}", title_justify="left")
    missing: dict[str, set[str]] = {}
    entries = manifest(split)
    for entry in entries:
        path = entry.locate(root)
        masks = path is not None and davis_masks(root / SOURCES["DAVIS-2017"].folder, path) is not None
        here = "missing" if path is None else "with masks" if masks else "yes"
        table.add_row(entry.id, entry.clip, entry.source, entry.edit_type, here)
        if path is None:
            missing.setdefault(entry.source, set()).add(entry.clip)
    console.print(table)
    count = sum(entry.locate(root) is not None for entry in entries)
    console.print(f"{count} of {len(entries)} pairs can be edited")
    for name, clips in missing.items():
        source = SOURCES[name]
        console.print(f"\n[bold]{name}[/], {len(clips)} clips missing. {source.to_be_had}", highlight=False)
        console.print(f"  terms: {source.terms}\n  {', '.join(sorted(clips))}", highlight=False, soft_wrap=True)


def download(url: str, file: Path, sha256: str | None = None) -> None:
    """Fetches `url` to `file` with progress, going on where an earlier attempt stopped.

    Raises InputError when the address can't be reached or the checksum is another one; what came so far is kept in the
    first case and removed in the second.
    """
    part = file.with_name(file.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    columns = (TextColumn(file.name), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    try:
        with urllib.request.urlopen(request, timeout=60) as response, Progress(*columns, console=console) as bar:
            have = have if response.status == 206 else 0  # a server that knows no ranges begins again
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            task = bar.add_task(file.name, total=total, completed=have)
            with part.open("ab" if have else "wb") as out:
                while chunk := response.read(CHUNK):
                    out.write(chunk)
                    bar.update(task, advance=len(chunk))
        complete = total is None or part.stat().st_size == total
    except urllib.error.HTTPError as error:
        complete = error.code == 416 and have > 0  # all of it was there before
        require(complete, f"{url} answers {error.code} {error.reason}: give another address with --url")
    except (OSError, http.client.HTTPException) as error:
        have = part.stat().st_size if part.exists() else 0
        raise InputError(f"{url} can't be read ({error}). The same command goes on at {have} bytes") from error
    require(complete, f"{url} ended early. The same command goes on where it stopped, {part.stat().st_size} bytes in")
    check_digest(part, sha256)
    part.replace(file)


def fetch_davis(root: Path, url: str, sha256: str | None) -> None:
    """DAVIS-2017 trainval at 480p into the data root. Raises InputError where it can't be had or isn't a whole zip."""
    file = root / Path(url).name
    if file.exists():
        check_digest(file, sha256)
    else:
        download(url, file, sha256)
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            require(damaged is None, f"{file}: {damaged} in it is damaged. Remove the file and fetch it again")
            archive.extractall(root)
    except zipfile.BadZipFile as error:
        raise InputError(f"{file} is no zip file ({error}). Remove it and fetch it again") from error
    file.unlink()
    require(
        (root / "DAVIS" / DAVIS_FRAMES).is_dir(),
        f"{url} holds no DAVIS/{DAVIS_FRAMES}: give another address with --url",
    )


def import_clips(root: Path, path: Path) -> list[str]:
    """Sorts the benchmark's clips found in a folder or zip into the data root, by name; returns what was taken.

    A file `<clip>.mp4`, or a folder of frames `<clip>`, is the clip; of Shutterstock the name may have more around the
    number. Clips that are already here stay as they are.
    """
    path = path.resolve()
    require(path.exists(), f"{path} does not exist: give a folder of clips, or a zip file of them")
    if path.is_file():
        require(zipfile.is_zipfile(path), f"{path} is neither a folder nor a zip file")
        with tempfile.TemporaryDirectory(dir=ensure(root)) as folder, zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
            return import_clips(root, Path(folder))
    found = {
        (name, clip.is_dir(), "JPEGImages" in clip.parts): clip for clip in clips_below(path) for name in names_of(clip)
    }
    taken = []
    for entry in manifest("extended"):
        if entry.source == "DAVIS-2017":
            clip = found.get((entry.clip, True, True))
        else:  # LOVEU-TGVE has clips that are called like DAVIS's and are cut otherwise
            clip = found.get((entry.clip, False, False)) or found.get((entry.clip, True, False))
        if clip is None or entry.locate(root):
            continue
        goal = entry.home(root).with_suffix("" if clip.is_dir() else clip.suffix.lower())
        copy_aside(clip, goal)
        if entry.source == "DAVIS-2017" and (masks := davis_masks(clip.parents[2], clip)):
            copy_aside(masks, root / SOURCES[entry.source].folder / DAVIS_MASKS / entry.identifier)
        taken.append(entry.identifier)
    return taken


def copy_aside(original: Path, goal: Path) -> None:
    """A file or folder, copied under another name and renamed: half a copy never looks like a clip."""
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


def ensure(folder: Path) -> Path:
    """The folder, made where it isn't there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_digest(file: Path, sha256: str | None) -> None:
    """Prints a file's SHA-256; removes the file and raises InputError where another one is expected."""
    found = digest(file)
    if sha256 and found != sha256.lower():
        file.unlink()
        raise InputError(f"{file}: its SHA-256 is {found}, and not {sha256}. It was removed")
    console.print(f"SHA-256 {found}", highlight=False, soft_wrap=True)


def digest(file: Path) -> str:
    """SHA-256, read in pieces."""
    whole = hashlib.sha256()
    with file.open("rb") as pieces:
        while chunk := pieces.read(CHUNK):
            whole.update(chunk)
    return whole.hexdigest()


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="data root; the environment's ASSD_DATA, else ./data")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("status", help="what is here, what is missing and where it is to be had")
    listing.add_argument("--split", choices=SPLITS, default="core")
    fetching = commands.add_parser("fetch", help="download a source that may be downloaded")
    fetching.add_argument("source", choices=["davis"])
    fetching.add_argument("--url", default=DAVIS_URL)
    fetching.add_argument("--sha256", help="refuse a file with another checksum")
    taking = commands.add_parser("import", help="sort in clips that you got elsewhere, by name")
    taking.add_argument("path", type=Path, help="a folder or zip file")
    options = parser.parse_args()
    root = data_root(options.root)
    if options.command == "status":
        status(root, options.split)
    elif options.command == "fetch":
        fetch_davis(root, options.url, options.sha256)
        status(root, "core")
    else:
        taken = import_clips(root, options.path)
        console.print(f"taken: {', '.join(taken) or 'nothing; a clip must have its name in the benchmark'}")


if __name__ == "__main__":
    main()
