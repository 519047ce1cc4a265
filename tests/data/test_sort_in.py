"""Clips that somebody got elsewhere, sorted in by name."""

import shutil
import zipfile

import pytest
from PIL import Image

from assd.data.benchmark.manifest import manifest
from assd.data.benchmark.sort_in import import_clips
from assd.errors import InputError
from tests.data.benchmark_files import clip_file, davis_sequence


@pytest.mark.parametrize("zipped", [False, True])
def test_importing_by_name(tmp_path, zipped):
    """Clips got elsewhere are sorted in by name, in whatever folders they lie; others are left, and so are masks."""
    theirs, root = tmp_path / "theirs", tmp_path / "data"
    clip_file(theirs / "tgve" / "youtube" / "ski-follow.mp4")
    clip_file(theirs / "shutterstock_1056182372_airplane.mp4")
    clip_file(theirs / "holiday.mp4")
    davis_sequence(theirs, "blackswan")
    path = theirs
    if zipped:
        path = tmp_path / "theirs.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in theirs.rglob("*.*"):
                archive.write(file, file.relative_to(theirs))
    assert set(import_clips(root, path)) == {"blackswan", "youtube_480p/ski-follow", "1056182372"}
    found = {entry.identifier for entry in manifest("core") if entry.locate(root)}
    assert found == {"blackswan", "youtube_480p/ski-follow", "1056182372"}
    assert len(list((root / "DAVIS" / "Annotations" / "480p" / "blackswan").iterdir())) == 5
    assert import_clips(root, path) == []
    assert not list(root.rglob("*holiday*"))


def test_importing_what_looks_alike(tmp_path):
    """A DAVIS clip may be a plain file; 480p is taken before another size, and LOVEU-TGVE's own cut of one never."""
    theirs, root = tmp_path / "theirs", tmp_path / "data"
    clip_file(theirs / "bear.mp4")
    clip_file(theirs / "loveu" / "DAVIS_480p" / "boat.mp4")
    davis_sequence(theirs, "blackswan")
    large = theirs / "DAVIS" / "JPEGImages" / "Full-Resolution" / "blackswan"
    large.mkdir(parents=True)
    Image.new("RGB", (1920, 1080)).save(large / "00000.jpg")
    assert set(import_clips(root, theirs)) == {"bear", "blackswan"}
    assert len(list((root / "DAVIS" / "JPEGImages" / "480p" / "blackswan").iterdir())) == 5
    assert (root / "DAVIS" / "JPEGImages" / "480p" / "bear.mp4").is_file()


def test_masks_come_with_an_interrupted_import(tmp_path):
    """Masks of a clip that is not there yet do no harm and are kept: the same command ends what was begun."""
    theirs, root = tmp_path / "theirs", tmp_path / "data"
    davis_sequence(theirs, "blackswan")
    masks = root / "DAVIS" / "Annotations" / "480p" / "blackswan"
    shutil.copytree(theirs / "DAVIS" / "Annotations" / "480p" / "blackswan", masks)
    assert import_clips(root, theirs) == ["blackswan"]
    (entry,) = {entry.clip: entry for entry in manifest("core") if entry.clip == "blackswan"}.values()
    assert entry.masks(root) == masks


def test_importing_nothing(tmp_path):
    """A path that isn't there, or is neither folder nor zip, is refused by name."""
    (tmp_path / "note.txt").write_text("no clip")
    for name in ("absent", "note.txt"):
        with pytest.raises(InputError, match=name):
            import_clips(tmp_path / "data", tmp_path / name)
