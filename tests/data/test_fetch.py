"""Fetching DAVIS, from a local server, and archives that are damaged."""

import hashlib
import http.server
import io
import threading
import zipfile

import pytest

from assd.data.benchmark.fetch import download, fetch_davis, part_of
from assd.data.benchmark.manifest import manifest
from assd.data.benchmark.sort_in import import_clips
from assd.errors import InputError
from tests.data.benchmark_files import davis_sequence


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
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
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
    part_of(tmp_path / "davis.zip", server.url).write_bytes(server.content)
    download(server.url, tmp_path / "davis.zip", hashlib.sha256(server.content).hexdigest())
    assert (tmp_path / "davis.zip").read_bytes() == server.content


def test_a_wrong_checksum_is_refused(tmp_path, server):
    """The file is removed, so that nothing unpacks it later and the next attempt begins anew."""
    server.content = b"something else"
    with pytest.raises(InputError, match="SHA-256"):
        download(server.url, tmp_path / "davis.zip", "0" * 64)
    assert not list(tmp_path.glob("davis.zip*"))


def test_what_is_no_zip_is_refused(tmp_path, server):
    """A page that says `log in` comes with status 200 as well. The next command fetches again."""
    server.content = b"<html>log in</html>"
    with pytest.raises(InputError, match="no zip file"):
        fetch_davis(tmp_path / "data", server.url, None)
    server.content = davis_zip(tmp_path)
    fetch_davis(tmp_path / "data", server.url, None)
    assert manifest("core")[0].locate(tmp_path / "data")


def test_what_came_from_another_address_is_not_gone_on_with(tmp_path, server):
    """Two archives of one name: the second is fetched from its first byte."""
    part_of(tmp_path / "davis.zip", "http://elsewhere/davis.zip").write_bytes(b"other")
    server.content = b"x" * 1000
    download(server.url, tmp_path / "davis.zip")
    assert (tmp_path / "davis.zip").read_bytes() == server.content


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
