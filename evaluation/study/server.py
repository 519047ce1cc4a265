"""Serves a study's folder and collects its answers, on one machine and with the standard library.

    GET  /...                   the page and its clips
    GET  /assign?rater=NAME     {"study": ..., "sheet": ...}
    POST /answers               201 when the answer is on the disk; otherwise a status and, as text, the reason

For a study on the open internet, put a web server with TLS before it.
"""

import contextlib
import json
import re
import socket
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from assd.errors import require
from evaluation.study.key import Refused, is_rater, read_key, refuse_unless
from evaluation.study.store import Answers

LARGEST = 16 * 1024  # bytes of an answer; a real one has less than one kilobyte
PATIENCE = 30  # seconds that a silent connection is kept
UNREAD = (404, 411, 413)  # statuses of a request whose body was not read
MOST_UNREAD = 64  # times LARGEST bytes
RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


class Handler(SimpleHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def __init__(self, *args: Any, answers: Answers, **kwargs: Any) -> None:
        self.answers = answers
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        """A sheet for a rater, or a file."""
        address = urlsplit(self.path)
        if address.path == "/assign":
            self.answer_or_refuse(lambda: self.assign(address.query))
        elif "Range" in self.headers and (file := Path(self.translate_path(self.path))).is_file():
            self.send_range(file)
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """An answer."""
        self.answer_or_refuse(self.collect)

    def do_OPTIONS(self) -> None:
        """A browser asks whether a page of another host may post here: answers carry their own proof, so it may."""
        self.reply(HTTPStatus.NO_CONTENT, "")

    def answer_or_refuse(self, action: Any) -> None:
        """Replies with what the action returns, or with the reason why not."""
        try:
            self.reply(*action())
        except Refused as refused:
            self.reply(refused.status, str(refused))
            if refused.status in UNREAD:
                self.hang_up()

    def assign(self, query: str) -> tuple[int, str]:
        """The rater's sheet."""
        rater = parse_qs(query).get("rater", [""])[0]
        refuse_unless(is_rater(rater), 400, "ask for /assign?rater=NAME")
        sheet = self.answers.assign(rater)
        return HTTPStatus.OK, json.dumps({"study": self.answers.key.study, "sheet": sheet})

    def collect(self) -> tuple[int, str]:
        """Reads an answer and keeps it."""
        refuse_unless(urlsplit(self.path).path == "/answers", 404, "answers are posted to /answers")
        length = self.headers.get("Content-Length", "")
        refuse_unless(length.isascii() and length.isdigit(), 411, "an answer states its Content-Length")
        refuse_unless(len(length) < 10 and int(length) <= LARGEST, 413, f"an answer has at most {LARGEST} bytes")
        try:
            answer = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused(400, "an answer is a JSON object") from None
        try:
            self.answers.add(answer)
        except OSError as error:
            print(f"an answer could not be written: {error}", file=sys.stderr)
            raise Refused(507, "the answer could not be written: try again later") from error
        return HTTPStatus.CREATED, "kept"

    def hang_up(self) -> None:
        """Ends a connection whose request was not read to its end: what is left of it is no next request.

        It reads on for a moment, because a connection closed with bytes unread loses the reply too.
        """
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            for _ in range(MOST_UNREAD):
                if not self.connection.recv(LARGEST):
                    break

    def reply(self, status: int, text: str) -> None:
        """A short text."""
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "Content-Type")
        if status in UNREAD:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_range(self, file: Path) -> None:
        """One part of a file, without which browsers do not jump within a video, and some do not play it."""
        size = file.stat().st_size
        found = RANGE.match(self.headers["Range"])
        first, last = part(found, size) if found else (0, size - 1)
        if first > last:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(str(file)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        with file.open("rb") as opened:
            opened.seek(first)
            self.wfile.write(opened.read(last - first + 1))

    def end_headers(self) -> None:
        """With every reply."""
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """Nobody needs to see which files there are."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, *message: Any) -> None:
        """Requests are not shown."""


def part(found: re.Match[str], size: int) -> tuple[int, int]:
    """First and last byte of a range such as `0-99`, `100-` or, the last 100, `-100`; empty where first > last."""
    first, last = found.groups()
    if first:
        return int(first), min(int(last), size - 1) if last else size - 1
    return (max(size - int(last), 0), size - 1) if last else (1, 0)


class Server(ThreadingHTTPServer):
    """A thread for each connection; a browser that went away is no error."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet where the connection broke."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(study: Path, key: Path, answers: Path, host: str, port: int) -> Server:
    """A server that is bound and not yet running. Port 0 takes a free one."""
    require((study / "index.html").is_file(), f"{study} holds no study: `page` makes one")
    require(
        not answers.resolve().is_relative_to(study.resolve()),
        f"{answers} lies in the folder that is served, where everyone can read it: give another --answers",
    )
    collected = Answers(answers, read_key(key))
    return Server((host, port), partial(Handler, answers=collected, directory=str(study)))
