"""Downloads that go on where they stopped, of DAVIS-2017, and archives that are unpacked whole or not at all."""

import contextlib
import errno
import hashlib
import http.client
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from assd.console import console as make_console
from assd.data.pairs import DAVIS_FRAMES, DAVIS_MASKS
from assd.errors import InputError, require

DAVIS_URL = "https://data.vision.ee.ethz.ch/jpont/davis/DAVIS-2017-trainval-480p.zip"
CHUNK = 1 << 20  # bytes read at once

console = make_console()


def download(url: str, file: Path, sha256: str | None = None) -> None:
    """Fetches `url` to `file` with progress, going on where an earlier attempt stopped.

    Raises InputError when the address can't be reached or the checksum is another one; what came so far is kept in the
    first case and removed in the second.
    """
    part = part_of(file, url)
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    except ValueError as error:
        raise InputError(f"{url!r} is no address ({error}): give another one with --url") from error
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


def part_of(file: Path, url: str) -> Path:
    """Where what came so far is kept. It belongs to the address: what came from elsewhere is not gone on with."""
    return file.with_name(f"{file.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")


def fetch_davis(root: Path, url: str, sha256: str | None) -> None:
    """DAVIS-2017 trainval at 480p into the data root. Raises InputError where it can't be had or isn't a whole zip.

    A download that is something else is removed, so that the next command fetches again; a file that was there stays.
    """
    file = root / Path(url).name
    was_there = file.exists()
    if was_there:
        check_digest(file, sha256)
    else:
        download(url, file, sha256)
    try:
        place_davis(file, root)
    except InputError:
        if not was_there:
            file.unlink()
        raise
    file.unlink()


def place_davis(file: Path, root: Path) -> None:
    """The sequences of DAVIS's zip file below the data root. Raises InputError where there are none."""
    with unpacked(file, root) as folder:
        require(
            (folder / "DAVIS" / DAVIS_FRAMES).is_dir(),
            f"{file} holds no DAVIS/{DAVIS_FRAMES}: remove it if it is there, and give another address with --url",
        )
        for part in (DAVIS_MASKS, DAVIS_FRAMES):  # masks first: frames alone would be taken for all there is
            for sequence in sorted((folder / "DAVIS" / part).glob("*")):
                goal = root / "DAVIS" / part / sequence.name
                goal.parent.mkdir(parents=True, exist_ok=True)
                if not goal.exists():
                    sequence.replace(goal)


@contextlib.contextmanager
def unpacked(file: Path, root: Path) -> Iterator[Path]:
    """What a zip file holds, in a temporary folder below `root`. Raises InputError for what can't be unpacked."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        try:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
        except Exception as error:  # what is said of damaged zip files has no common ancestor
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a full disk; the other is a bad offset
                raise
            raise InputError(f"{file} is no zip file, or a damaged one ({error}): get it again") from error
        yield Path(folder)


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
