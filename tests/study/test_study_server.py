"""The server: what it has acknowledged is never lost, and what does not answer the study is refused."""

import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from assd.errors import InputError
from evaluation.study.answers import read_sessions
from evaluation.study.blind import Blind
from evaluation.study.key import beside, write_key
from evaluation.study.plan import Plan
from evaluation.study.server import LARGEST, make_server
from evaluation.study.store import Answers, read_lines

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
KILLS = 50


def study_of(folder, *, sheets=4, trials=6, pairs=8):
    """A study's folder with a page that says nothing, and its key."""
    plan = Plan(design="pairwise", sheets=sheets, trials=trials, broken=1, repeats=1, seed=0)
    key = Blind("5e" * 32, {f"pair {number}": ["a", "b", "c", "d"] for number in range(pairs)}).key(plan)
    (folder / "study").mkdir()
    (folder / "study/index.html").write_text("a page")
    (folder / "study/clip.mp4").write_bytes(bytes(range(100)))
    write_key(key, beside(folder / "study", "key.json"))
    return folder / "study", key


def answer_to(key, sheet, place, rater="1", choice=0, **changes):
    """As the page posts it."""
    trial = key.sheets[sheet][place]
    choices = dict.fromkeys(key.questions, choice)
    told = dict(study=key.study, rater=rater, sheet=sheet, signature=key.signatures[sheet], seed=0)
    return told | dict(trial=trial.id, clips=trial.clips, choices=choices, seconds=9.5, loops=4) | changes


class Client:
    """A browser."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __call__(self, method, path, body=None, headers=()):
        self.connection.request(method, path, body, dict(headers))
        reply = self.connection.getresponse()
        return reply.status, reply.read().decode("latin-1")

    def post(self, answer):
        return self("POST", "/answers", json.dumps(answer))


@contextmanager
def running(folder):
    """A server in a thread; gives its port and the file of its answers."""
    answers = folder / "answers.jsonl"
    server = make_server(folder / "study", folder / "study-key.json", answers, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1], answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served(tmp_path):
    """A client of a running server, the key, and the file of answers."""
    _, key = study_of(tmp_path)
    with running(tmp_path) as (port, answers):
        yield Client(port), key, answers


def test_an_answer_is_kept_once(served):
    """It is on the disk when it is acknowledged; the same again, or another to the same trial, is refused."""
    client, key, answers = served
    assert client.post(answer_to(key, 0, 0)) == (201, "kept")
    (line,) = read_lines(answers)
    assert (line["trial"], line["choices"]["alignment"]) == (key.sheets[0][0].id, 0)
    for again in (answer_to(key, 0, 0), answer_to(key, 0, 0, choice=None)):
        status, reason = client.post(again)
        assert status == 409 and "before" in reason
    assert client.post(answer_to(key, 0, 0, rater="another")) == (201, "kept")
    assert len(read_lines(answers)) == 2


def test_what_was_not_served_is_refused(served):
    """Every way in which an answer can be wrong has its status and its reason, and nothing of it is kept."""
    client, key, answers = served
    right = answer_to(key, 1, 2)
    wrong = [
        (403, "another study", dict(study="x")),
        (403, "no sheet 99", dict(sheet=99)),
        (403, "no sheet -1", dict(sheet=-1)),
        (403, "signature", dict(sheet=2)),
        (403, "signature", dict(signature="ü" * 64)),
        (403, "no trial", dict(trial=key.sheets[2][0].id)),
        (403, "in their order", dict(clips=right["clips"][::-1])),
        (400, "the questions are", dict(choices={"alignment": 0})),
        (400, "number below 2", dict(choices=dict.fromkeys(key.questions, 2))),
        (400, "number below 2", dict(choices=dict.fromkeys(key.questions, True))),
        (400, "number below 2", dict(choices=dict.fromkeys(key.questions, "0"))),
        (400, "1 to 64", dict(rater="")),
        (400, "1 to 64", dict(rater="x" * 65)),
        (400, "1 to 64", dict(rater="a\nb")),
        (400, "wrong type", dict(sheet=True)),
        (400, "wrong type", dict(seconds="9")),
        (400, "length of time", dict(seconds=float("nan"))),
        (400, "length of time", dict(seconds=-1)),
    ]
    for status, reason, change in wrong:
        found = client.post(right | change)
        assert found[0] == status and reason in found[1], (change, found)
    del right["choices"]
    assert client.post(right) == (400, "an answer has a field choices")
    assert not read_lines(answers)


def test_what_is_no_answer_is_refused(served):
    """Malformed, oversized, without length, to another address; the connection goes on where it can."""
    client, key, answers = served
    for body in ("", "{", "[]", "7", '"x"', "\xff", "[" * 10_000):
        assert client("POST", "/answers", body.encode("latin-1"))[0] == 400
    assert client("POST", "/answers", b"x" * (LARGEST + 1))[0] == 413
    assert client("POST", "/answers", b"x" * (20 * LARGEST))[0] == 413
    assert client("POST", "/answers", iter([b"x"]), {"Transfer-Encoding": "chunked"})[0] == 411
    assert client("POST", "/answers", b"x", {"Content-Length": "-1"})[0] == 411
    assert client("POST", "/elsewhere", b"{}")[0] == 404
    assert client("PUT", "/answers", b"{}")[0] == 501
    assert not read_lines(answers)
    assert client.post(answer_to(key, 0, 0))[0] == 201


def test_a_rater_keeps_one_sheet(served):
    """What began on one sheet is not answered on another."""
    client, key, _ = served
    assert client.post(answer_to(key, 0, 0, rater="kim"))[0] == 201
    status, reason = client.post(answer_to(key, 1, 0, rater="kim"))
    assert status == 403 and "answers sheet 0" in reason


def test_sheets_are_handed_out_evenly(served):
    """Names get the sheet that fewest have finished and fewest have; numbers say theirs; a rater comes back to his."""
    client, key, answers = served

    def sheet(rater):
        return json.loads(client("GET", f"/assign?rater={rater}")[1])["sheet"]

    assert [sheet(f"r{i}") for i in range(4)] == [0, 1, 2, 3]
    assert [sheet("1"), sheet("6"), sheet("r2")] == [0, 1, 2]
    for place in range(len(key.sheets[2])):
        assert client.post(answer_to(key, 2, place, rater="r2"))[0] == 201
    assert sheet("new") == 3  # sheets 0 and 1 have been given twice, and sheet 2 is finished
    assert client("GET", "/assign")[0] == 400
    assert Counter(record["sheet"] for record in read_lines(answers) if "trial" not in record)[0] == 2


def test_two_raters_at_once(served):
    """Their answers come in one whole line after another."""
    client, key, answers = served
    trials = len(key.sheets[0])

    def rate(rater):
        mine = Client(client.connection.port)
        statuses[rater] = [mine.post(answer_to(key, 0, place, rater=rater))[0] for place in range(trials)]

    statuses: dict[str, list[int]] = {}
    raters = [threading.Thread(target=rate, args=(name,)) for name in ("a", "b")]
    for thread in raters:
        thread.start()
    for thread in raters:
        thread.join()
    assert statuses == {"a": [201] * trials, "b": [201] * trials}
    sessions, refused = read_sessions([answers], key)
    assert not refused
    assert {session.rater: len(session.answers) for session in sessions} == {"a": trials, "b": trials}


def test_only_the_folder_is_served(served):
    """Neither the key nor the answers beside it, nor a list of files; parts of a clip for browsers that jump in it."""
    client, _, _ = served
    assert client("GET", "/?rater=1") == (200, "a page")
    for path in ("/../study-key.json", "/%2e%2e/study-key.json", "/study-key.json", "/clips/"):
        assert client("GET", path)[0] == 404
    assert client("GET", "/clip.mp4", headers={"Range": "bytes=10-19"}) == (206, bytes(range(10, 20)).decode())
    assert client("GET", "/clip.mp4", headers={"Range": "bytes=90-"}) == (206, bytes(range(90, 100)).decode())
    assert client("GET", "/clip.mp4", headers={"Range": "bytes=-5"}) == (206, bytes(range(95, 100)).decode())
    assert client("GET", "/clip.mp4", headers={"Range": "bytes=100-"})[0] == 416


def test_answers_are_not_served(tmp_path):
    """A file of answers in the served folder is refused."""
    study, _ = study_of(tmp_path)
    with pytest.raises(InputError, match="lies in the folder that is served"):
        make_server(study, tmp_path / "study-key.json", study / "answers.jsonl", "127.0.0.1", 0)


def test_one_server_for_one_file(tmp_path):
    """Two would not know of each other's answers."""
    _, key = study_of(tmp_path)
    first = Answers(tmp_path / "answers.jsonl", key)
    with pytest.raises(InputError, match="another server"):
        Answers(tmp_path / "answers.jsonl", key)
    first.file.close()


def test_half_a_line_is_passed_over(tmp_path):
    """After a line that a killed server left half, the next answer begins a line of its own."""
    _, key = study_of(tmp_path)
    path = tmp_path / "answers.jsonl"
    whole, half = (json.dumps(answer_to(key, 0, place)) for place in (0, 1))
    path.write_text(f"{whole}\n{half[:50]}")
    store = Answers(path, key)
    store.add(answer_to(key, 0, 1))
    store.file.close()
    assert [line["trial"] for line in read_lines(path)] == [trial.id for trial in key.sheets[0][:2]]


class Killed:
    """A server in a process of its own, to be killed."""

    def __init__(self, study):
        command = [sys.executable, "-m", "evaluation.study", "serve", str(study), "--port", "0"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.port = int(re.search(r":(\d+)/", self.process.stdout.readline())[1])

    def kill(self):
        self.process.kill()
        self.process.communicate()


def test_no_acknowledged_answer_is_lost(tmp_path):
    """Two raters answer as fast as they can while the server is killed fifty times: every acknowledged answer is there.

    What was not acknowledged is sent again, and is either new or there already.
    """
    study, key = study_of(tmp_path, sheets=2, trials=3000, pairs=600)
    file, chance = tmp_path / "study-answers.jsonl", random.Random(0)
    acknowledged: dict[str, set[str]] = {"1": set(), "2": set()}
    place = dict.fromkeys(acknowledged, 0)
    repeated = []

    def rate(rater, port):
        sheet = int(rater) - 1
        try:
            client = Client(port)
            while True:
                status, _ = client.post(answer_to(key, sheet, place[rater], rater=rater))
                assert status in (201, 409)
                repeated.extend([status] * (status == 409))
                acknowledged[rater].add(key.sheets[sheet][place[rater]].id)
                place[rater] += 1
        except (OSError, http.client.HTTPException):
            return  # the server was killed

    for _ in range(KILLS):
        server = Killed(study)
        before = sum(place.values())
        raters = [threading.Thread(target=rate, args=(rater, server.port)) for rater in acknowledged]
        for thread in raters:
            thread.start()
        while sum(place.values()) == before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        server.kill()
        for thread in raters:
            thread.join()
        kept = {(line["rater"], line["trial"]) for line in read_lines(file)}
        assert not {(rater, trial) for rater, trials in acknowledged.items() for trial in trials} - kept
    sessions, refused = read_sessions([file], key)
    assert not refused
    assert {session.rater for session in sessions} == {*acknowledged}
    assert len(repeated) <= 2 * KILLS
