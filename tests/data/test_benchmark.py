"""The benchmark of real videos: what is here, what is missing, fetching (from a local server) and sorting in."""

import csv
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from assd.benchmark.__main__ import status
from PIL import Image

from assd.benchmark import benchmark
from assd.data.benchmark.dataset import read_entry
from assd.data.benchmark.fetch import download, fetch_davis
from assd.data.benchmark.manifest import MANIFEST_CSV, SOURCES, manifest
from assd.data.benchmark.sort_in import import_clips
from assd.data.pairs import Prompts
from assd.data.video import write_video
from assd.errors import InputError, NotHereError
from evaluation.case import Case

SIZE = dict(num_frames=4, height=64, width=64)


def davis_sequence(root, name, frames=5):
    """A sequence in DAVIS's layout: frames, and masks whose object is the left half."""
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        path = root / "DAVIS" / folder / "480p" / name
        path.mkdir(parents=True)
        for i in range(frames):
            pixels = np.zeros((60, 80, 3), np.uint8) + 30 * i
            if folder == "Annotations":
                pixels = np.repeat((np.arange(80) < 40)[None].astype(np.uint8), 60, 0)
            Image.fromarray(pixels).save(path / f"{i:05d}.{suffix}")


def clip_file(path):
    """A short mp4."""
    import torch  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8), 8.0)
    return path


def test_the_core_has_30_pairs():
    """30 core pairs, 87 in all; every row has a known source, two different prompts, and a citation; ids are unique."""
    core, extended = manifest("core"), manifest("extended")
    assert len(core) == 30
    assert len(extended) == 87
    assert len({entry.id for entry in extended}) == 87
    for entry in extended:
        assert entry.source in SOURCES
        assert entry.source_prompt != entry.target_prompt
        assert entry.citation


def test_manifest_has_no_stray_columns():
    """A comma that someone forgot to quote would shift a citation into nowhere."""
    with MANIFEST_CSV.open(newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {7}


def test_an_empty_data_root_says_where_to_look(tmp_path, capsys):
    """status counts nothing and names every source; the dataset refuses to begin, with the command to type."""
    status(tmp_path, "core")
    printed = capsys.readouterr().out
    assert "0 of 30 pairs can be edited" in printed
    for text in ("fetch davis", "loveu-tgve-2023", "Shutterstock"):
        assert text in printed
    with pytest.raises(InputError, match=r"assd.benchmark status"):
        benchmark(str(tmp_path), "core", **SIZE)


def test_a_filled_data_root(tmp_path, capsys):
    """DAVIS's two pairs of the bear can be edited, with masks; others are left out when their turn comes."""
    davis_sequence(tmp_path, "bear")
    status(tmp_path, "core")
    assert "2 of 30 pairs can be edited" in capsys.readouterr().out
    pairs = benchmark(str(tmp_path), "core", **SIZE)
    assert [pair.id for pair in pairs[:3]] == ["core-01-bear", "core-02-bear", "core-03-blackswan"]
    footage = pairs[0].read()
    assert footage.frames.shape == (4, 3, 64, 64)
    assert footage.masks[:, :, :20].all()
    assert not footage.masks[:, :, 44:].any()
    with pytest.raises(NotHereError, match="blackswan"):
        pairs[2].read()


def test_a_run_on_an_incomplete_benchmark(tmp_path):
    """What is here is edited with its masks in the scores, the rest is a row with the reason, exit code 0."""
    davis_sequence(tmp_path / "data", "bear", frames=8)
    prompts = tmp_path / "in_the_models_words.csv"
    rows = list(csv.DictReader(MANIFEST_CSV.open(newline="")))[:3]
    for row in rows:  # the embedded model knows no bears
        row |= {
            "source_prompt": "a red circle moving right over snow",
            "target_prompt": "a blue circle moving up over snow",
        }
    with prompts.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    program = (
        "import sys; from pathlib import Path; from assd.benchmark import manifest; "
        f"manifest.MANIFEST_CSV = Path({str(prompts)!r}); from assd.run import main; main()"
    )
    command = [
        sys.executable, "-c", program, "dataset=benchmark", f"dataset.root={tmp_path / 'data'}", "method.num_steps=2",
        "targets_together=2", "tracking.mode=disabled", "metric=[psnr]", f"output={tmp_path / 'runs'}", "device=cpu",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (scores,) = (tmp_path / "runs").glob("*/scores.csv")
    rows = [row for row in csv.DictReader(scores.open(newline="")) if row["video"] == "edited"]
    assert [(row["pair"], bool(row["value"])) for row in rows] == [
        ("core-01-bear", True),
        ("core-02-bear", True),
        ("core-03-blackswan", False),
    ]
    assert "blackswan is not in" in rows[2]["reason"]
    tables = [sys.executable, "-m", "evaluation.tables", str(scores.parent)]
    assert "blackswan" in subprocess.run(tables, capture_output=True, text=True, check=True).stdout
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "runs").glob("*/edits/*/edit.json"))]
    assert [record["status"] for record in records] == ["finished", "finished", "failed"]


@pytest.fixture
def server(tmp_path):
    """Serves `content`, with or without ranges, cut short where it is told to be; keeps the ranges it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content, cut, ranges, asked = b"", None, True, []

        def do_GET(self):
            start = 0
            self.asked.append(self.headers.get("Range"))
            if self.ranges and (header := self.headers.get("Range")):
                start = int(header.removeprefix("bytes=").rstrip("-"))
                if start >= len(self.content):
                    self.send_error(416)
                    return
            body = self.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.cut is None else body[: self.cut])

        def log_message(self, *_):
            pass

    Handler.asked = []
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{listening.server_port}/davis.zip"
    yield Handler
    listening.shutdown()


def davis_zip(tmp_path):
    """A zip file in the layout of DAVIS's own."""
    davis_sequence(tmp_path / "zipped", "bear")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted((tmp_path / "zipped").rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path / "zipped"))
    return packed.getvalue()


def test_fetching_davis(tmp_path, server):
    """The zip is fetched, checked, unpacked and removed, and its pairs can be edited."""
    server.content = davis_zip(tmp_path)
    fetch_davis(tmp_path / "data", server.url, hashlib.sha256(server.content).hexdigest())
    assert manifest("core")[0].locate(tmp_path / "data")
    assert not list((tmp_path / "data").glob("*.zip*"))


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(tmp_path, server, ranges):
    """After a broken connection the same call asks for the rest, or begins again where a server can't: same bytes."""
    server.content, server.ranges, server.cut = bytes(range(256)) * 1000, ranges, 100_000
    with pytest.raises(InputError, match="same command goes on"):
        download(server.url, tmp_path / "davis.zip")
    server.cut = None
    download(server.url, tmp_path / "davis.zip", hashlib.sha256(server.content).hexdigest())
    assert (tmp_path / "davis.zip").read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-"]


def test_a_complete_part_is_not_fetched_again(tmp_path, server):
    """Interrupted after the last byte: the server has nothing more to send, and the file is whole."""
    server.content = b"x" * 1000
    (tmp_path / "davis.zip.part").write_bytes(server.content)
    download(server.url, tmp_path / "davis.zip", hashlib.sha256(server.content).hexdigest())
    assert (tmp_path / "davis.zip").read_bytes() == server.content


def test_a_wrong_checksum_is_refused(tmp_path, server):
    """The file is removed, so that nothing unpacks it later and the next attempt begins anew."""
    server.content = b"something else"
    with pytest.raises(InputError, match="SHA-256"):
        download(server.url, tmp_path / "davis.zip", "0" * 64)
    assert not list(tmp_path.glob("davis.zip*"))


def test_what_is_no_zip_is_refused(tmp_path, server):
    """A page that says `log in` comes with status 200 as well."""
    server.content = b"<html>log in</html>"
    with pytest.raises(InputError, match="no zip file"):
        fetch_davis(tmp_path, server.url, None)


def test_a_damaged_zip_is_refused(tmp_path):
    """Bytes that were lost within a file are one sentence, and nothing of the zip lies in the data root."""
    path, root = tmp_path / "davis.zip", tmp_path / "data"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("DAVIS/JPEGImages/480p/bear/00000.jpg", bytes(range(256)) * 100)
    content = bytearray(path.read_bytes())
    content[100:160] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        import_clips(root, path)
    assert not list(root.iterdir())


def test_an_address_without_answer(tmp_path, server):
    """A closed port is one sentence, with the address."""
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1/davis\.zip can't be read"):
        download("http://127.0.0.1:1/davis.zip", tmp_path / "davis.zip")


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


@pytest.mark.parametrize(
    ("edit_type", "changes"),
    [("object_swap", "object"), ("colour", "object"), ("background", "background"), ("style", "everything")],
)
def test_what_an_edit_changes_follows_from_its_kind(tmp_path, edit_type, changes):
    """Outside the object nothing is to stay where the background or the style is edited."""
    davis_sequence(tmp_path, "bear")
    (number, *_) = [i for i, entry in enumerate(manifest("core")) if entry.edit_type == edit_type]
    entry = replace(manifest("core")[number], identifier="bear", source="DAVIS-2017")
    footage = read_entry(entry, tmp_path, **SIZE)
    assert footage.changes == changes
    case = Case(footage.frames, Prompts("a", "b"), footage)
    assert (case.kept("background") is None) == (changes != "object")
    assert (case.kept("object") is None) == (changes != "background")


def test_importing_nothing(tmp_path):
    """A path that isn't there, or is neither folder nor zip, is refused by name."""
    (tmp_path / "note.txt").write_text("no clip")
    for name in ("absent", "note.txt"):
        with pytest.raises(InputError, match=name):
            import_clips(tmp_path / "data", tmp_path / name)
