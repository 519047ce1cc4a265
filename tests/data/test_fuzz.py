"""Files with bytes changed at random: each is a video or an InputError, never a crash or a hang."""

import functools
import multiprocessing
import zipfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from assd.data.benchmark.sort_in import import_clips
from assd.data.pairs import folder
from assd.data.video import read_video, write_frames, write_video
from assd.errors import InputError
from tests.data.clips import encode, noisy_clip

pytestmark = pytest.mark.end_to_end

COUNT = 100  # of each kind
SECONDS = 30  # a decoder that needs longer for eight small frames hangs
SEALED = ("png", "zip")  # with checksums, so that every change is seen
CLIP = noisy_clip(8)
TABLE = "video,source_prompt,target_prompt,changes\nclip.mp4,a cat,a dog,object\nframes,a car,a bus,background\n"


def change(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes replaced, a span repeated, removed or zeroed, or the end cut off."""
    data = bytearray(content)
    first, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    span = slice(first, first + length)
    match rng.integers(5):
        case 0 | 1:
            for place in rng.integers(len(data), size=rng.integers(1, 32)):
                data[place] = rng.integers(256)
        case 2:
            data[span] = data[span] * int(rng.integers(2, 5))
        case 3:
            data[span] = rng.choice([b"", bytes(length), bytes([255]) * length])
        case 4:
            del data[first:]
    return bytes(data)


def whole(kind: str, here: Path) -> Path:
    """A good file of a kind; it is what will be changed."""
    if kind == "png":
        write_frames(here / "frames", CLIP)
    elif kind == "jpg":
        (here / "frames").mkdir()
        for number, frame in enumerate(CLIP.numpy()):
            Image.fromarray(frame).save(here / "frames" / f"{number:05d}.jpg")
    elif kind == "gif":
        encode(here / "clip.gif", CLIP, "gif", "rgb8")
    elif kind == "h264.mkv":
        encode(here / "clip.mkv", CLIP, "libx264", "yuv420p")
    else:
        write_video(here / ("clip.mkv" if kind == "ffv1.mkv" else "clip.mp4"), CLIP, 8.0)
    if kind == "zip":
        with zipfile.ZipFile(here / "clips.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(here / "clip.mp4", "theirs/bear.mp4")
        return here / "clips.zip"
    if kind == "prompts.csv":
        (here / "prompts.csv").write_text(TABLE, encoding="utf-8")
        return here / "prompts.csv"
    return here / "frames" / f"00002.{kind}" if kind in ("png", "jpg") else here / f"clip.{kind.rpartition('.')[2]}"


def read(kind: str, file: Path, number: int) -> None:
    """What the program does with such a file."""
    if kind == "prompts.csv":
        for pair in folder(str(file.parent), 4, 32, 32):
            pair.read(pair.canvas)
    elif kind == "zip":
        import_clips(file.parent / f"data{number}", file)
    else:
        frames = read_video(file.parent if kind in ("png", "jpg") else file, 4).frames
        assert frames.dtype == torch.uint8
        assert len(frames) == 4


def attempt(act: Callable[[], None]) -> str:
    """How it ended."""
    try:
        act()
    except InputError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def work(kind: str, here: Path, answers: Connection) -> None:
    """All files of a kind, in a process of their own: each answer is sent as it comes."""
    file = whole(kind, here)
    content = file.read_bytes()
    for number in range(COUNT):
        file.write_bytes(change(content, np.random.default_rng([number, *kind.encode()])))
        answers.send(attempt(functools.partial(read, kind, file, number)))


def answer(answers: Connection) -> str:
    """The next answer, or that none came."""
    try:
        return answers.recv() if answers.poll(SECONDS) else "hang"
    except EOFError:
        return "crash"


@pytest.mark.parametrize("kind", ["mp4", "ffv1.mkv", "h264.mkv", "gif", "png", "jpg", "prompts.csv", "zip"])
def test_changed_bytes_are_a_video_or_an_error(kind: str, tmp_path: Path) -> None:
    """Whatever the bytes; and the changes are of both sorts: those that matter and those that do not."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(kind, tmp_path, sender))
    process.start()
    sender.close()
    found = []
    while len(found) < COUNT and "hang" not in found and "crash" not in found:
        found.append(answer(receiver))
    process.kill()
    process.join()
    assert {number: said for number, said in enumerate(found) if said not in ("read", "refused")} == {}
    assert found.count("refused") >= 3
    assert found.count("read") >= 3 or kind in SEALED
