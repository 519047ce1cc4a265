"""What can't be read is refused in words."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from assd.data.video import read_video, write_frames, write_video
from assd.errors import InputError
from tests.data.clips import encode, noisy_clip, numbered_clip, smooth_clip


def refusal(path: Path, num_frames: int = 8) -> str:
    """What reading this says."""
    with pytest.raises(InputError) as caught:
        read_video(path, num_frames)
    return str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """The message names the file, and the folder from which it was looked for."""
    message = refusal(tmp_path / "none.mp4")
    assert f"{tmp_path / 'none.mp4'} does not exist" in message
    assert str(Path.cwd()) in message


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Text named .mp4 is refused by name, with the kinds that can be read."""
    path = tmp_path / "notes.mp4"
    path.write_text("these are words, not a film\n" * 50)
    message = refusal(path)
    assert str(path) in message
    assert ".webm" in message


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """A file of no bytes is refused by name, and the message says that it may be empty."""
    path = tmp_path / "empty.mp4"
    path.touch()
    message = refusal(path)
    assert str(path) in message
    assert "empty" in message


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    """Cut before its index (moov, at the end of many recordings) a file is refused as one that may be cut off."""
    whole = tmp_path / "whole.mp4"
    encode(whole, noisy_clip(), "libx264", "yuv420p")
    content = whole.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])
    message = refusal(cut)
    assert str(cut) in message
    assert "cut off" in message


def test_an_mp4_cut_within_its_frames_is_refused(tmp_path: Path) -> None:
    """With its index but only half of its bytes a file gives too few frames, and that is said, naming it."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    encode(whole, noisy_clip(16), "libx264", "yuv420p", movflags="+faststart")
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    assert b"moov" in cut.read_bytes()
    assert len(read_video(whole, 16).frames) == 16
    message = refusal(cut, 16)
    assert str(cut) in message
    assert "cut off" in message or "take a longer video" in message


def test_an_mp4_of_which_no_frame_is_left_is_refused(tmp_path: Path) -> None:
    """With its index and no frame's bytes a file is refused, naming it, and the message says that it is cut off."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    encode(whole, noisy_clip(16), "libx264", "yuv420p", movflags="+faststart")
    content = whole.read_bytes()
    cut.write_bytes(content[: content.index(b"mdat") + 8])
    message = refusal(cut, 1)
    assert str(cut) in message
    assert "cut off" in message


def test_a_video_without_pictures_is_refused(tmp_path: Path) -> None:
    """A file that holds sound alone is refused by name."""
    path = tmp_path / "sound.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    message = refusal(path)
    assert str(path) in message
    assert "no video stream" in message


def test_too_few_frames_are_refused(tmp_path: Path) -> None:
    """A clip of 5 frames, asked for 8: both numbers, the file, and what to do."""
    write_video(tmp_path / "short.mp4", numbered_clip(5), 8.0)
    message = refusal(tmp_path / "short.mp4", 8)
    assert f"{tmp_path / 'short.mp4'} has 5 frames, and 8 were asked for" in message
    assert "smaller num_frames" in message


def test_a_folder_without_frames_is_refused(tmp_path: Path) -> None:
    """An empty folder is refused by name, with the suffixes that were looked for."""
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert ".png" in message


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    """A folder that mixes sizes is refused by name, and the message says what a folder should hold."""
    write_frames(tmp_path / "frames", smooth_clip(3))
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(tmp_path / "frames" / "00003.png")
    message = refusal(tmp_path / "frames", 4)
    assert str(tmp_path / "frames") in message
    assert "differ in size" in message


def test_a_broken_frame_is_refused(tmp_path: Path) -> None:
    """A frame that is no image is refused under its own name."""
    write_frames(tmp_path, smooth_clip(3))
    (tmp_path / "00001.png").write_bytes(b"nothing")
    assert str(tmp_path / "00001.png") in refusal(tmp_path, 3)
