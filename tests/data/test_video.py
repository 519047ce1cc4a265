"""Files and folders become frames, frames become files, and what can't be read is refused in words."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from assd.data.video import evenly_spaced, read_video, to_bytes, to_pixels, write_frames, write_video
from assd.errors import InputError
from assd.shapes.corpus import tuning_pair
from assd.shapes.world import render


def smooth_clip(count: int = 8, height: int = 48, width: int = 64) -> torch.Tensor:
    """Bytes of a clip without sharp edges in which colours, position and time all matter."""
    t, y, x = torch.meshgrid(torch.arange(count), torch.arange(height), torch.arange(width), indexing="ij")
    red = 40 + 150 * x / width
    green = 40 + 150 * y / height
    blue = 40 + 150 * t / max(count - 1, 1)
    return torch.stack([red, green, blue], dim=-1).round().to(torch.uint8)


def noisy_clip(count: int = 16) -> torch.Tensor:
    """Bytes that don't compress: a file of many bytes a frame."""
    return torch.randint(0, 256, (count, 48, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def numbered_clip(count: int) -> torch.Tensor:
    """A clip whose frame i is grey of brightness 20 + 8 i."""
    return (20 + 8 * torch.arange(count)).to(torch.uint8)[:, None, None, None].expand(count, 32, 32, 3).contiguous()


def numbers(frames: torch.Tensor) -> list[int]:
    """Which frames of a numbered clip these are."""
    return ((frames.float().mean((1, 2, 3)) - 20) / 8).round().int().tolist()


def encode(path: Path, frames: torch.Tensor, codec: str, pix_fmt: str, movflags: str = "") -> None:
    """A file that this project did not write, 10 frames a second; skips where this PyAV has no such encoder."""
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)))
        container.mux(stream.encode())


def refusal(path: Path, num_frames: int = 8) -> str:
    """What reading this says."""
    with pytest.raises(InputError) as caught:
        read_video(path, num_frames)
    return str(caught.value)


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


def test_the_same_frames_are_the_same_file(tmp_path):
    """Scores are read from files, so a file must depend on its frames alone, whatever was in memory before."""
    frames = to_bytes(render(tuning_pair(2).source)[0])  # stars at night, where it used to happen
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
