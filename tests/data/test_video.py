"""Files and folders become frames, and frames become files."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from assd.data.video import evenly_spaced, read_video, to_bytes, to_pixels, write_frames, write_video
from assd.shapes.corpus import tuning_pair
from assd.shapes.world import render
from tests.data.clips import encode, noisy_clip, numbered_clip, numbers, smooth_clip


def test_mp4_holds_what_was_written(tmp_path: Path) -> None:
    """A clip written and read back has as many frames, the same rate, and every frame within 6 of 255 on average."""
    clip = smooth_clip()
    write_video(tmp_path / "clip.mp4", clip, 12.5)
    video = read_video(tmp_path / "clip.mp4", len(clip))
    assert video.frames.shape == clip.shape
    assert video.fps == pytest.approx(12.5, rel=1e-3)
    errors = (video.frames.float() - clip.float()).abs().mean((1, 2, 3))
    assert errors.max() < 6
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]  # nothing half written stays


def test_mp4_is_h264_in_yuv420p(tmp_path: Path) -> None:
    """What is written is H.264 in yuv420p, its index (moov) before its frames (mdat): what browsers play at once."""
    write_video(tmp_path / "clip.mp4", noisy_clip(), 8.0)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.width, codec.height) == (64, 48)
    content = (tmp_path / "clip.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(
    ("available", "expected"),
    [(10, [0, 3, 6, 9]), (8, [0, 4, 7]), (23, [0, 6, 11, 16, 22]), (9, [0]), (6, [0, 1, 2, 3, 4, 5])],
)
def test_frames_are_evenly_spaced(tmp_path: Path, available: int, expected: list[int]) -> None:
    """Of N frames n are read at round(linspace(0, N - 1, n)): first and last are always among them."""
    write_video(tmp_path / "clip.mp4", numbered_clip(available), 8.0)
    assert numbers(read_video(tmp_path / "clip.mp4", len(expected)).frames) == expected
    assert evenly_spaced(available, len(expected), tmp_path) == expected


@pytest.mark.parametrize("wanted", [2, 5, 17])
def test_sampled_frames_play_as_long(tmp_path: Path, wanted: int) -> None:
    """From the first frame to the last takes one second of 17 frames at 16 a second, however many are kept."""
    write_video(tmp_path / "clip.mp4", numbered_clip(17), 16.0)
    video = read_video(tmp_path / "clip.mp4", wanted)
    assert (wanted - 1) / video.fps == pytest.approx(1.0)


def test_the_first_frames_are_taken_where_they_are_asked_for(tmp_path: Path) -> None:
    """The first five of nine and no others, at the rate of the file or folder."""
    write_frames(tmp_path / "clip", numbered_clip(9))
    write_video(tmp_path / "clip.mkv", numbered_clip(9), 24.0)
    for path in (tmp_path / "clip", tmp_path / "clip.mkv"):
        video = read_video(path, 5, first=True)
        assert numbers(video.frames) == [0, 1, 2, 3, 4]
        assert video.fps == pytest.approx(24.0)


@pytest.mark.parametrize("transposed", [False, True])
def test_aspect_is_kept_and_the_centre_cropped(transposed: bool) -> None:
    """Of a clip four times as wide as high the middle quarter stays, and a square in it stays a square."""
    clip = torch.zeros(2, 32, 128, 3, dtype=torch.uint8)
    clip[..., 0] = 255  # red is what must be cropped away
    clip[:, :, 46:82] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    clip[:, 12:20, 60:68] = 255
    pixels = to_pixels(clip.transpose(1, 2).contiguous() if transposed else clip, 64, 64)
    assert pixels.shape == (2, 3, 64, 64)
    red, green, blue = pixels.unbind(1)
    assert green.min() > 0.99
    assert torch.equal(red > 0, blue > 0)
    square = (blue > 0)[0].nonzero()
    assert square.amin(0).tolist() == [24, 24]
    assert square.amax(0).tolist() == [39, 39]
    assert len(square) == 16 * 16


def test_a_smaller_size_is_antialiased() -> None:
    """Stripes one pixel wide become even grey, not a moire of black and white."""
    stripes = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    pixels = to_pixels(stripes, 16, 16)
    assert pixels[..., 1:-1].abs().max() < 0.2


def test_bytes_survive_pixels_exactly() -> None:
    """Bytes to pixels in [-1, 1] and back are the same bytes, for each of the 256 values."""
    clip = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
    pixels = to_pixels(clip, 16, 16)
    assert (pixels.min().item(), pixels.max().item()) == (-1.0, 1.0)
    assert torch.equal(to_bytes(pixels), clip)


def test_pixels_out_of_range_are_clamped() -> None:
    """Beyond [-1, 1] a byte is 0 or 255; it never wraps around."""
    frames = torch.tensor([-7.0, -1.001, 1.001, 7.0]).reshape(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert to_bytes(frames).float().mean((1, 2, 3)).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("clip.gif", "gif", "rgb8"),
        ("clip.avi", "mpeg4", "yuv420p"),
        ("clip.webm", "libvpx-vp9", "yuv420p"),
        ("clip.mov", "mjpeg", "yuvj420p"),
        ("clip.mkv", "libx264", "yuv420p"),
    ],
)
def test_other_containers_are_read(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    """gif, avi, webm, mov and mkv give the frames in their order, at their rate."""
    brightness = torch.tensor([0, 60, 120, 180, 240])
    clip = brightness.to(torch.uint8)[:, None, None, None].expand(5, 32, 48, 3).contiguous()
    encode(tmp_path / name, clip, codec, pix_fmt)
    video = read_video(tmp_path / name, 3)
    assert video.frames.shape == (3, 32, 48, 3)
    assert video.frames.float().mean((1, 2, 3)).tolist() == pytest.approx([0, 120, 240], abs=20)
    assert video.fps == pytest.approx(5, rel=0.02)


def test_a_folder_of_frames_is_read_by_name(tmp_path: Path) -> None:
    """PNG frames come back exactly, in the order of their names, whatever else lies beside them."""
    clip = noisy_clip(7)
    write_frames(tmp_path / "frames", clip)
    (tmp_path / "frames" / "notes.txt").write_text("not a frame")
    video = read_video(tmp_path / "frames", 4)
    assert torch.equal(video.frames, clip[[0, 2, 4, 6]])
    assert 3 / video.fps == pytest.approx(6 / 24)  # DAVIS's 24 frames a second


@pytest.mark.parametrize("form", ["{}", "shot2_frame{}", "{}_of_12"])
def test_numbers_without_leading_zeros_are_in_order(tmp_path: Path, form: str) -> None:
    """1, 2, ... 10, 11, 12, as ffmpeg's %d writes them, and not 1, 10, 11, 12, 2."""
    for number, frame in enumerate(numbered_clip(12), start=1):
        Image.fromarray(frame.numpy()).save(tmp_path / f"{form.format(number)}.png")
    assert numbers(read_video(tmp_path, None).frames) == [*range(12)]


def test_jpeg_frames_are_read(tmp_path: Path) -> None:
    """A folder may hold .jpg and .JPEG, grey or in colour: all become RGB."""
    Image.fromarray(np.full((16, 24, 3), 200, np.uint8)).save(tmp_path / "0.jpg")
    Image.fromarray(np.full((16, 24), 100, np.uint8)).save(tmp_path / "1.JPEG")
    video = read_video(tmp_path, 2)
    assert video.frames.shape == (2, 16, 24, 3)
    assert video.frames.float().mean((1, 2, 3)).tolist() == pytest.approx([200, 100], abs=2)


@pytest.mark.parametrize(("height", "width"), [(33, 48), (32, 49), (33, 49)])
def test_odd_sizes_lose_one_row_or_column(tmp_path: Path, height: int, width: int) -> None:
    """yuv420p knows even sizes only: the last row or column goes, the rest stays where it was."""
    clip = smooth_clip(3, height, width)
    write_video(tmp_path / "clip.mp4", clip, 8.0)
    video = read_video(tmp_path / "clip.mp4", 3)
    assert video.frames.shape == (3, 32, 48, 3)
    assert (video.frames.float() - clip[:, :32, :48].float()).abs().mean() < 6


@pytest.mark.parametrize(("height", "width"), [(33, 49), (31, 64), (65, 63)])
def test_odd_sources_are_fitted(tmp_path: Path, height: int, width: int) -> None:
    """Frames of odd sizes fill the model's size as others do."""
    write_frames(tmp_path / "frames", smooth_clip(3, height, width))
    assert to_pixels(read_video(tmp_path / "frames", 3).frames, 64, 64).shape == (3, 3, 64, 64)


def test_the_same_frames_are_the_same_file(tmp_path):
    """Scores are read from files, so a file must depend on its frames alone, whatever was in memory before."""
    frames = to_bytes(render(tuning_pair(2).source).frames)  # stars at night, where it used to happen
    rng, junk = np.random.default_rng(0), []
    files = {"a.mp4": set(), "a.mkv": set()}
    for _ in range(40):
        junk = [*junk[-20:], rng.integers(0, 255, rng.integers(1_000, 200_000), dtype=np.uint8)]
        for name, seen in files.items():
            write_video(tmp_path / name, frames, 8.0)
            seen.add((tmp_path / name).read_bytes())
    assert [len(seen) for seen in files.values()] == [1, 1]


def test_mkv_loses_nothing(tmp_path):
    """What is scored is what was decoded, to the last bit, also of odd size."""
    noise = torch.randint(0, 256, (5, 63, 65, 3), dtype=torch.uint8)
    write_video(tmp_path / "a.mkv", noise, 12.5)
    assert torch.equal(read_video(tmp_path / "a.mkv", None).frames, noise)


def test_a_phones_video_stands_upright(tmp_path):
    """A file that says `turn me by 90 degrees clockwise` is read as players show it."""
    frames = torch.zeros(3, 32, 64, 3, dtype=torch.uint8)
    frames[:, :, :32] = 255  # white on the left, which comes to lie above
    write_video(tmp_path / "phone.mp4", frames, 8.0)
    content = (tmp_path / "phone.mp4").read_bytes()
    upright, turned = ([1, 0, 0, 0, 1, 0, 0, 0, 0x4000], [0, 1, 0, -1, 0, 0, 0, 0, 0x4000])
    before, after = (struct.pack(">9i", *(value << 16 for value in matrix)) for matrix in (upright, turned))
    track = content.index(b"tkhd")
    matrix = content.index(before, track)
    (tmp_path / "phone.mp4").write_bytes(content[:matrix] + after + content[matrix + len(before) :])
    read = read_video(tmp_path / "phone.mp4", None).frames
    assert read.shape == (3, 64, 32, 3)
    assert read[:, :32].float().mean() > 240
    assert read[:, 32:].float().mean() < 15
