"""How bad inputs are made: good ones, damaged on purpose."""

import atexit
import functools
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pandas as pd
from PIL import Image

from assd.data.video import write_frames, write_video
from assd.models.hub import resolve_folder
from evaluation.scores import COLUMNS, row, update_scores
from tests.commands import PAIR
from tests.data.clips import noisy_clip, smooth_clip
from tests.finished import finished_run

Maker = Callable[[Path], object]
RUN = "out/steps.distillation=1"  # where the commands of this table write their run
EDIT = f"{RUN}/edits/{PAIR}"


def file(name: str, content: str | bytes = "") -> Maker:
    """A file with this content."""

    def make(here: Path) -> None:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def both(*makers: Maker) -> Maker:
    """One after the other."""
    return lambda here: [make(here) for make in makers]


def prompts(*rows: str | bytes) -> Maker:
    """videos/prompts.csv of these rows, beside a good clip.mp4."""
    lines = [
        line if isinstance(line, bytes) else line.encode() for line in ("video,source_prompt,target_prompt", *rows)
    ]
    return both(clip("videos/clip.mp4"), file("videos/prompts.csv", b"\n".join(lines) + b"\n"))


def clip(name: str, frames: int = 8) -> Maker:
    """A good video of 64 x 48."""

    def make(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(here / name, noisy_clip(frames), 8.0)

    return make


def cut(name: str, keep: float) -> Maker:
    """Only this share of a file."""
    return lambda here: (here / name).write_bytes(
        (here / name).read_bytes()[: int((here / name).stat().st_size * keep)]
    )


def frames(name: str = "frames", count: int = 8) -> Maker:
    """A good folder of frames."""
    return lambda here: write_frames(here / name, smooth_clip(count))


def picture(name: str, size: tuple[int, int] = (64, 48)) -> Maker:
    """A picture in one colour."""
    return lambda here: Image.new("RGB", size).save(here / name)


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [header, b"IDAT", b"IEND"]
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def sound(here: Path) -> None:
    """A file that holds sound alone."""
    with av.open(str(here / "sound.avi"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux([*stream.encode(samples), *stream.encode()])


def two_sizes(here: Path) -> None:
    """A video whose pictures change their size in the middle: two H.264 streams, one after the other."""
    streams = []
    for number, size in enumerate((48, 64)):
        part = here / f"{number}.h264"
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            for _ in range(4):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((size, size, 3), np.uint8))))
            container.mux(stream.encode())
        streams.append(part.read_bytes())
        part.unlink()
    (here / "clip.mp4").write_bytes(b"".join(streams))


def pipe(name: str) -> Maker:
    """Something that can be opened and never ends."""
    return lambda here: os.mkfifo(here / name)


def link(name: str, to: str) -> Maker:
    """A symbolic link, to a path seen from its folder."""

    def make(here: Path) -> None:
        (here / name).unlink(missing_ok=True)
        (here / name).symlink_to(to)

    return make


def model(here: Path) -> None:
    """The embedded model, whose files may be changed."""
    shutil.copytree(resolve_folder("pkg://assd.shapes/weights"), here / "model")


def model_with(name: str, content: str | bytes) -> Maker:
    """A model in which one file has another content."""
    return both(model, file(f"model/{name}", content))


def model_says(name: str, **values: object) -> Maker:
    """A model of which one configuration says something else."""
    return both(model, says(f"model/{name}", **values))


def says(name: str, **values: object) -> Maker:
    """A JSON file with these values in it."""
    return lambda here: (here / name).write_text(json.dumps(json.loads((here / name).read_text()) | values))


def remove(name: str) -> Maker:
    """A file or folder is gone."""
    return lambda here: shutil.rmtree(here / name) if (here / name).is_dir() else (here / name).unlink()


def hostile(here: Path) -> bytes:
    """A pickle that makes a file `owned` where it is loaded."""
    return b"cbuiltins\nopen\n(V" + str(here / "owned").encode() + b"\nVw\ntR."


@functools.cache
def good_run() -> Path:
    """A finished and scored run of one pair, made once."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    run = finished_run(folder / "run", lambda known: known.truth, pairs=1, overrides=["steps.distillation=1"])
    rows = [
        row(PAIR, video, "CLIP text (cosine)", "higher", value) for video, value in (("source", 0.1), ("edited", 1.0))
    ]
    for place in (run, run / "edits" / PAIR):
        update_scores(place, pd.DataFrame(rows, columns=COLUMNS))
    return run


def run(here: Path) -> None:
    """A finished run."""
    shutil.copytree(good_run(), here / RUN)


def run_with(name: str, content: str | bytes) -> Maker:
    """A finished run in which one file has another content."""
    return both(run, file(f"{RUN}/{name}", content))


def run_says(name: str, **values: object) -> Maker:
    """A finished run of which a JSON file says something else."""
    return both(run, says(f"{RUN}/{name}", **values))


def stopped_run(checkpoint: Callable[[Path], bytes]) -> Maker:
    """A run that was stopped within its pair, with this checkpoint."""

    def make(here: Path) -> None:
        run(here)
        (here / EDIT / "edit.json").unlink()
        (here / EDIT / "checkpoint.safetensors").write_bytes(checkpoint(here))

    return make


def zipped(content: dict[str, bytes], name: str = "clips.zip") -> Maker:
    """A zip file with these files."""

    def make(here: Path) -> None:
        with zipfile.ZipFile(here / name, "w") as archive:
            for inside, data in content.items():
                archive.writestr(inside, data)

    return make
