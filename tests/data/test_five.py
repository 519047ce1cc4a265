"""FiVE-Bench's files become text-video pairs; what is wrong with them is said in a sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from assd.config import composed
from assd.data.five import edit_type_of, five
from assd.data.pairs import Canvas, Prompts
from assd.data.video import to_bytes
from assd.errors import InputError
from tests.data.five_files import CAPTION, HEIGHT, VIDEOS, WIDTH, item, write_five, write_manifest


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The benchmark as it was published."""
    return write_five(tmp_path_factory.mktemp("five"))


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy of it, for a test that damages it."""
    return Path(shutil.copytree(published, tmp_path / "five"))


def pictures(root: Path, folder: str, video: str, count: int) -> list[Image.Image]:
    """The first pictures of a folder."""
    return [Image.open(root / folder / video / f"{i + 1:05d}.jpg") for i in range(count)]


def test_the_composed_dataset_is_the_manifests(published):
    """In the manifests' order, prompts without brackets, each pair at its source's size and of one clip."""
    pairs = instantiate(composed(["dataset=five", f"dataset.root={published}"]).dataset, _convert_="all")
    expected = ["edit1-001-0001_bus", "edit1-002-0002_girl-dog", *(f"edit{i}-001-0001_bus" for i in (2, 3, 4, 5))]
    assert [pair.id for pair in pairs] == [*expected, "edit6-001-0002_girl-dog"]
    assert [edit_type_of(pair.id) for pair in pairs] == [1, 1, 2, 3, 4, 5, 6]
    assert {pair.prompts for pair in pairs} == {Prompts(CAPTION, CAPTION)}
    assert {pair.canvas for pair in pairs} == {Canvas(composed([]).model.num_frames, HEIGHT, WIDTH)}
    assert {pair.clip for pair in pairs} == set(VIDEOS)


def test_frames_are_the_first_and_masks_are_above_zero(published):
    """The first three frames of 41 and no others; what is not 0 in a mask is the object, JPEG's ringing too."""
    pair = five(str(published), 3, edit_types=[6])[0]
    footage = pair.read(pair.canvas)
    frames = np.stack([np.asarray(picture) for picture in pictures(published, "images", VIDEOS[1], 3)])
    masks = np.stack([np.asarray(picture) > 0 for picture in pictures(published, "bmasks", VIDEOS[1], 3)])
    assert (to_bytes(footage.frames).numpy() == frames).all()
    assert (footage.masks.numpy() == masks).all()


def test_another_canvas_stretches(published):
    """At a model's size the whole frame is there, as Pillow resizes it; the mask keeps its place."""
    footage = five(str(published), 2)[0].read(Canvas(2, 64, 32))
    (_, expected) = (p.resize((32, 64)) for p in pictures(published, "images", VIDEOS[0], 2))
    difference = to_bytes(footage.frames)[1].numpy().astype(int) - np.asarray(expected).astype(int)
    assert abs(difference).max() <= 1
    (_, mask) = (np.asarray(p) > 0 for p in pictures(published, "bmasks", VIDEOS[0], 2))
    where, expected_where = torch.nonzero(footage.masks[1].float()).float().mean(0), np.argwhere(mask).mean(0)
    assert where.tolist() == pytest.approx([expected_where[0] * 64 / HEIGHT, expected_where[1] * 32 / WIDTH], abs=0.7)


def test_an_unknown_edit_type_is_left_out(root):
    """FiVE's code skips an entry whose editing_type_id is not 1 to 6; the others keep their numbers."""
    write_manifest(root, 2, [item(2, VIDEOS[0]) | {"editing_type_id": "7"}, item(2, VIDEOS[1])])
    assert [pair.id for pair in five(str(root), 1, edit_types=[2])] == ["edit2-002-0002_girl-dog"]


def without_key(root: Path) -> None:
    """A manifest whose second edit lacks a prompt."""
    whole = item(1, VIDEOS[1])
    write_manifest(root, 1, [item(1, VIDEOS[0]), {key: whole[key] for key in whole if key != "target_prompt"}])


DAMAGE = {
    "no manifest": (lambda root: (root / "edit_prompt/edit3_FiVE.json").unlink(), r"edit3_FiVE.json does not exist"),
    "cut off": (lambda root: write_manifest(root, 4, json.dumps([item(4, VIDEOS[0])])[:-9]), r"edit4.* is no JSON"),
    "no list": (lambda root: write_manifest(root, 1, {}), r"edit1_FiVE.json must hold a list of edits"),
    "no record": (lambda root: write_manifest(root, 1, ["edit"]), r"edit 1 must have the keys video_name"),
    "key missing": (without_key, r"edit1_FiVE.json, edit 2 lacks target_prompt"),
    "no text": (lambda root: write_manifest(root, 1, [item(1, "a") | {"save_dir": 3}]), r"save_dir must be text"),
    "no prompt": (lambda root: write_manifest(root, 1, [item(1, "a") | {"target_prompt": " "}]), r"is empty"),
    "leads out": (lambda root: write_manifest(root, 1, [item(1, "../a")]), r"video_name must be a plain name"),
    "saved out": (lambda root: write_manifest(root, 1, [item(1, "a") | {"save_dir": "/tmp"}]), r"save_dir a folder"),
    "no video": (lambda root: write_manifest(root, 1, [item(1, "0099_cat")]), r"images has no folder 0099_cat"),
    "no masks": (lambda root: shutil.rmtree(root / "bmasks" / VIDEOS[1]), r"bmasks has no folder 0002_girl-dog"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said(root, damage):
    """What is wrong, where, and what it should be."""
    harm, sentence = DAMAGE[damage]
    harm(root)
    with pytest.raises(InputError, match=sentence):
        five(str(root), 2)


def test_what_a_video_lacks_is_said(root):
    """A frame without mask, too few frames, a type that there is not."""
    pair = five(str(root), 5)[0]
    (root / "bmasks" / VIDEOS[0] / "00004.jpg").unlink()
    with pytest.raises(InputError, match=r"0001_bus has no mask for frame 00004"):
        pair.read(pair.canvas)
    with pytest.raises(InputError, match=r"41 frames, and the first 99 were asked for"):
        pair.read(Canvas(99, 8, 8))
    with pytest.raises(InputError, match=r"some of 1 to 6"):
        five(str(root), 2, edit_types=[0, 1])
