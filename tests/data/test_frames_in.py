"""Pictures and files that other programs write, as they are meant."""

import numpy as np
import pytest
from PIL import Image

from assd.data.pairs import Canvas
from assd.data.video import open_image, read_video, write_video
from assd.errors import InputError
from tests.data.clips import smooth_clip


def test_grey_in_sixteen_bits_is_scaled(tmp_path):
    """0, a half and all of 65535 are 0, 128 and 255, where clipping would make the last two white."""
    levels = np.array([[0, 32896, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "00000.png")
    assert Image.open(tmp_path / "00000.png").mode.startswith("I")
    frames = read_video(tmp_path, 1).frames
    assert frames[0, 0].tolist() == [[0, 0, 0], [128, 128, 128], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_kind_of_picture_is_rgb(tmp_path, mode):
    """White in any mode is white."""
    white = Image.new("RGBA" if mode == "LA" else "RGB", (6, 4), "white").convert(mode)
    white.save(tmp_path / ("0.jpg" if mode == "CMYK" else "0.png"))
    assert read_video(tmp_path, 1).frames.min() >= 254


ORIENTATION = 0x0112  # EXIF's number for it


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_phones_picture_stands_upright(tmp_path, suffix):
    """A picture that says `turn me by 90 degrees clockwise` is read as viewers show it."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :32] = 255  # white on the left, which comes to lie above
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture).save(tmp_path / f"0{suffix}", exif=exif)
    (read,) = read_video(tmp_path, None).frames.float()
    assert read.shape == (64, 32, 3)
    assert read[:30].min() > 240
    assert read[34:].max() < 15


def test_exif_that_is_damaged_turns_nothing(tmp_path):
    """The picture is whole, and is read."""
    Image.new("RGB", (6, 4), "white").save(tmp_path / "0.jpg", exif=b"Exif\x00\x00no tags at all")
    assert read_video(tmp_path, 1).frames.shape == (1, 4, 6, 3)


def test_a_name_with_a_colon_is_no_address(tmp_path, monkeypatch):
    """FFmpeg would take `12:30.mp4` for a protocol."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "12:30.mp4", smooth_clip(3), 8.0)
    assert len(read_video((tmp_path / "12:30.mp4").relative_to(tmp_path), 3).frames) == 3


def test_a_folder_named_like_a_frame(tmp_path):
    """It is no picture, and is named."""
    (tmp_path / "0.png").mkdir()
    with pytest.raises(InputError, match=r"0\.png is no file"):
        open_image(tmp_path / "0.png")


@pytest.mark.parametrize("size", [(0, 64, 64), (8, -1, 64), (8, 64, 0)])
def test_a_canvas_has_a_size(size):
    """Nothing can be edited on no pixel."""
    with pytest.raises(InputError, match="must be >= 1"):
        Canvas(*size)
