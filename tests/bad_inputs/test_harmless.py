"""What may lie in a run directory, costs nothing, and is not let out of where it lies."""

import base64
import json
from pathlib import Path

import pytest

from tests.bad_inputs.entry import call, digests
from tests.bad_inputs.making import EDIT, RUN, Maker, both, file, link, remove, run, run_says
from tests.commands import PAIR

pytestmark = pytest.mark.end_to_end

SECRET = "the password is 1234"


def steps(line: str) -> Maker:
    """Curves with this line between two good ones."""
    return file(f"{EDIT}/steps.jsonl", f'{{"step": 0, "loss": 1.0}}\n{line}\n{{"step": 1, "loss": 2.0}}\n')


HARMLESS: dict[str, Maker] = {
    "null in steps.jsonl": steps("null"),
    "half a line in steps.jsonl": steps('{"st'),
    "texts, lists and NaN in steps.jsonl": steps('{"step": 3, "loss": NaN, "t": "x", "a": [1]}'),
    "no steps.jsonl": remove(f"{EDIT}/steps.jsonl"),
    "foreign files": both(
        file(f"{RUN}/notes.txt"), file(f"{EDIT}/.DS_Store"), file(f"{RUN}/edits/a/b/c.txt"), file("out/a.txt")
    ),
    "an id of ../../secret": run_says(f"edits/{PAIR}/edit.json", id="../../../../secret"),
    "an id with markup": run_says(f"edits/{PAIR}/edit.json", id="<script>alert(1)</script>"),
    "a video that leads to a secret": link(f"{EDIT}/edited.mp4", "../../../../secret"),
    "a picture that leads to a secret": link(f"{EDIT}/filmstrip.png", "../../../../secret"),
    "an environment that leads to a secret": link(f"{RUN}/environment.json", "../../secret"),
    "a pair that leads to another folder": both(
        file("elsewhere/edit.json", json.dumps({"source_prompt": SECRET, "target_prompt": "", "status": "finished"})),
        link(f"{RUN}/edits/02-elsewhere", "../../../elsewhere"),
    ),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_a_page_all_the_same(what: str, tmp_path: Path) -> None:
    """The page is written, nothing else is touched, and nothing from outside the run is on it."""
    if not what.startswith("an id"):
        run(tmp_path)
    file("secret", SECRET)(tmp_path)
    HARMLESS[what](tmp_path)
    before = digests(tmp_path)
    outcome = call("evaluation.report", str(tmp_path / RUN), "--output", str(tmp_path / "report.html"))
    assert outcome.code == 0, outcome.text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a black circle moving right over brick" in page
    assert SECRET not in page
    assert base64.b64encode(SECRET.encode()).decode() not in page
    assert "<script>alert(1)" not in page
    (tmp_path / "report.html").unlink()
    assert digests(tmp_path) == before
