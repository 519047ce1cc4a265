"""Directories of videos become text-video pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from assd.data.pairs import Canvas, Prompts, folder, video
from assd.data.video import write_frames, write_video
from assd.errors import InputError

ROWS = ("video,source_prompt,target_prompt", "clip.mp4,a cat,a tiger", '"in/frames",a dog,"a wolf, running"')


def write_csv(root: Path, *lines: str) -> None:
    """`prompts.csv` of these lines."""
    (root / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def grey(count: int, value: int) -> torch.Tensor:
    """Bytes of an even clip."""
    return torch.full((count, 24, 32, 3), value, dtype=torch.uint8)


def davis(root: Path, frames: int = 6) -> None:
    """One sequence in DAVIS's layout, twice as wide as high, two objects side by side moving to the right.

    Frames are white where an object is; annotations are palette PNGs whose indices alone tell, all colours black.
    """
    images, annotations = root / "JPEGImages" / "480p" / "cars", root / "Annotations" / "480p" / "cars"
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for i in range(frames):
        index = np.zeros((48, 96), np.uint8)
        index[12:28, 30 + 3 * i : 38 + 3 * i] = 1
        index[12:28, 38 + 3 * i : 46 + 3 * i] = 2
        picture = np.repeat((index > 0)[..., None].astype(np.uint8) * 255, 3, axis=-1)
        Image.fromarray(picture).save(images / f"{i:05d}.jpg", quality=98)
        annotation = Image.fromarray(index)
        annotation.putpalette([0, 0, 0] * 256)
        annotation.save(annotations / f"{i:05d}.png")
    write_csv(root, "video,source_prompt,target_prompt", "cars,two cars,two trucks")


def refusal(path: Path) -> str:
    """What making a dataset of this directory says."""
    with pytest.raises(InputError) as caught:
        folder(str(path), 4, 24, 32)
    return str(caught.value)


def test_folder_follows_its_csv(tmp_path: Path) -> None:
    """Every row is a pair in the file's order: prompts as they stand, a name of its own, files and folders alike."""
    write_csv(tmp_path, *ROWS)
    write_video(tmp_path / "clip.mp4", grey(4, 60), 8.0)
    write_frames(tmp_path / "in" / "frames", grey(4, 200))
    first, second = folder(str(tmp_path), 4, 24, 32)
    assert first.prompts == Prompts("a cat", "a tiger")
    assert second.prompts == Prompts("a dog", "a wolf, running")
    assert (first.id, second.id) == ("01-clip", "02-frames")
    for pair, value in ((first, 60), (second, 200)):
        footage = pair.read(pair.canvas)
        assert footage.frames.shape == (4, 3, 24, 32)
        assert footage.frames.mean().item() == pytest.approx(value / 127.5 - 1, abs=0.05)
        assert footage.masks is None
        assert footage.truth is None


def test_a_pair_is_scored_on_the_datasets_canvas_and_read_on_any(tmp_path: Path) -> None:
    """The dataset's size is the pair's canvas; a method that works at another size reads the same video at that."""
    write_csv(tmp_path, *ROWS[:2])
    write_video(tmp_path / "clip.mp4", grey(9, 60), 8.0)
    (pair,) = folder(str(tmp_path), 4, 24, 32)
    assert pair.canvas == Canvas(4, 24, 32)
    assert pair.read(pair.canvas).frames.shape == (4, 3, 24, 32)
    assert pair.read(Canvas(5, 16, 16)).frames.shape == (5, 3, 16, 16)


def test_other_columns_are_options(tmp_path: Path) -> None:
    """What the loader does not know is the edit's own, for methods that do; an empty cell is no option."""
    header = "video,source_prompt,target_prompt,blend_words,strength"
    write_csv(tmp_path, header, "a.mp4,a cat,a dog,cat,0.5", "a.mp4,a cat,a cow,,")
    first, second = folder(str(tmp_path), 4, 24, 32)
    assert first.options == {"blend_words": "cat", "strength": "0.5"}
    assert second.options == {}
    assert "changes" not in first.options


def test_two_edits_of_one_video_have_different_ids(tmp_path: Path) -> None:
    """A video may stand in several rows; each edit has a folder of its own."""
    write_csv(tmp_path, ROWS[0], "clip.mp4,a cat,a tiger", "clip.mp4,a cat,a lion")
    ids = [pair.id for pair in folder(str(tmp_path), 4, 24, 32)]
    assert len(set(ids)) == 2


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    """`limit` keeps the first so many pairs."""
    write_csv(tmp_path, *ROWS)
    assert [pair.id for pair in folder(str(tmp_path), 4, 24, 32, limit=1)] == ["01-clip"]


def test_pairs_are_read_in_their_turn(tmp_path: Path) -> None:
    """A video that is not there does not keep the dataset from being made; reading that pair says its name."""
    write_csv(tmp_path, ROWS[0], "lost.mp4,a cat,a tiger")
    (pair,) = folder(str(tmp_path), 4, 24, 32)
    with pytest.raises(InputError, match=r"lost\.mp4 does not exist"):
        pair.read(pair.canvas)


def test_davis_masks_lie_on_their_frames(tmp_path: Path) -> None:
    """Of DAVIS's root, frames and annotations are found by name, and masks are resized and cropped as the frames."""
    davis(tmp_path)
    (pair,) = folder(str(tmp_path), 6, 64, 64)
    footage = pair.read(pair.canvas)
    assert pair.id == "01-cars"
    assert footage.frames.shape == (6, 3, 64, 64)
    assert footage.masks is not None
    assert footage.masks.shape == (6, 64, 64)
    white = footage.frames.mean(1) > 0
    assert (footage.masks == white).float().mean() > 0.99
    assert footage.masks.float().mean((1, 2)).tolist() == pytest.approx([16 * 16 / 48**2] * 6, abs=0.02)
    columns = footage.masks.float().mean(1)
    centres = (columns * torch.arange(64)).sum(1) / columns.sum(1)
    assert centres.diff().tolist() == pytest.approx([3 * 64 / 48] * 5, abs=0.5)  # they move as the objects do


def test_what_an_edit_changes_may_be_said(tmp_path: Path) -> None:
    """A column of its own in prompts.csv; where it is empty or absent the object changes, and a slip is named."""
    davis(tmp_path)
    (plain,) = folder(str(tmp_path), 4, 48, 48)
    assert plain.read(plain.canvas).changes == "object"
    lines = ["video,source_prompt,target_prompt,changes", "cars,a,b,background", "cars,a,b,"]
    (tmp_path / "prompts.csv").write_text("\n".join(lines))
    assert [pair.read(pair.canvas).changes for pair in folder(str(tmp_path), 4, 48, 48)] == ["background", "object"]
    (tmp_path / "prompts.csv").write_text("\n".join([*lines, "cars,a,b,backgruond"]))
    with pytest.raises(InputError, match="row 3: changes must be one of object, background, everything"):
        folder(str(tmp_path), 4, 48, 48)


def test_davis_masks_are_sampled_as_the_frames(tmp_path: Path) -> None:
    """Where fewer frames are asked for than there are, each kept frame has its own mask."""
    davis(tmp_path)
    (pair,) = folder(str(tmp_path), 3, 48, 48)
    footage = pair.read(pair.canvas)
    assert footage.masks is not None
    assert (footage.masks == (footage.frames.mean(1) > 0)).float().mean() > 0.99


def test_masks_may_be_named_in_capitals(tmp_path: Path) -> None:
    """What counts as a frame counts as a mask."""
    davis(tmp_path)
    for file in (tmp_path / "Annotations" / "480p" / "cars").iterdir():
        file.rename(file.with_suffix(".PNG"))
    (pair,) = folder(str(tmp_path), 3, 48, 48)
    assert pair.read(pair.canvas).masks is not None


def test_a_folder_beside_annotations_need_not_have_them(tmp_path: Path) -> None:
    """A sequence without annotations has no mask."""
    davis(tmp_path)
    for file in (tmp_path / "Annotations" / "480p" / "cars").iterdir():
        file.unlink()
    (tmp_path / "Annotations" / "480p" / "cars").rmdir()
    (pair,) = folder(str(tmp_path), 4, 48, 48)
    assert pair.read(pair.canvas).masks is None


def test_missing_csv_is_refused(tmp_path: Path) -> None:
    """Without prompts.csv the message names the file and its columns."""
    message = refusal(tmp_path)
    assert str(tmp_path / "prompts.csv") in message
    assert "video, source_prompt, target_prompt" in message


@pytest.mark.parametrize("header", ["video,source_prompt", "file,source_prompt,target_prompt", "a"])
def test_missing_column_is_refused(tmp_path: Path, header: str) -> None:
    """A table without one of the columns is refused by name, with the columns it must have."""
    write_csv(tmp_path, header, ",".join("x" for _ in header.split(",")))
    message = refusal(tmp_path)
    assert str(tmp_path / "prompts.csv") in message
    assert "video, source_prompt, target_prompt" in message


@pytest.mark.parametrize("content", [[""], [ROWS[0]]])
def test_empty_csv_is_refused(tmp_path: Path, content: list[str]) -> None:
    """A table without rows is refused by name."""
    write_csv(tmp_path, *content)
    assert str(tmp_path / "prompts.csv") in refusal(tmp_path)


def test_one_video_is_one_pair(tmp_path: Path) -> None:
    """One's own video is a dataset of one pair, named after the file, at the model's size."""
    write_video(tmp_path / "cat.mp4", grey(9, 120), 8.0)
    (pair,) = video(str(tmp_path / "cat.mp4"), "a cat", "a tiger", 5, 16, 16)
    assert pair.id == "cat"
    assert pair.prompts == Prompts("a cat", "a tiger")
    footage = pair.read(pair.canvas)
    assert footage.frames.shape == (5, 3, 16, 16)
    assert footage.fps == pytest.approx(4)
    assert footage.masks is None
