"""What an edit costs: of this edit alone, and over all the processes that worked on it."""

import io
import json
import mmap

import pytest
import torch
from rich.console import Console

from assd.data.pairs import Canvas, Footage, Prompts, TextVideoPair
from assd.methods.method import Edit
from assd.runs import cost
from assd.runs.cost import CLEAR_REFS, Cost, peak_memory, reset_peak_memory
from assd.runs.directory import RunDirectory
from assd.runs.editor import Editor
from assd.runs.interrupt import Stop
from assd.runs.reader import FinishedEdit

CPU, CANVAS = torch.device("cpu"), Canvas(2, 8, 8)
FOOTAGE = Footage(torch.zeros(2, 3, 8, 8), 8.0)


class Interrupted(BaseException):
    """Ends a process in the middle of an edit."""


class Clock:
    """A clock that a method moves."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, device):
        return self.seconds


class Ticking:
    """A method of four steps of ten seconds, a checkpoint after each; it is interrupted after so many of them."""

    num_steps, canvas = 4, CANVAS

    def __init__(self, clock, interrupted_after=4):
        self.clock, self.interrupted_after = clock, interrupted_after

    def __call__(self, footage, source, requests, clip, advance):
        for step in range(requests[0].begin, self.num_steps):
            self.clock.seconds += 10
            if step == self.interrupted_after:
                raise Interrupted  # the ten seconds since the last checkpoint are lost
            for request in requests:
                request.checkpoint({"step": step + 1}, [{"step": step}])
        return [Edit(footage.frames) for _ in requests]


@pytest.fixture
def clock(monkeypatch):
    """In the place of the wall's."""
    clock = Clock()
    monkeypatch.setattr(cost, "wall_clock", clock)
    return clock


def edit(method, folder, *names, together=1):
    """Edits pairs of one clip into a run directory."""
    pairs = [TextVideoPair(name, Prompts("source", name), lambda canvas: FOOTAGE, "clip", CANVAS) for name in names]
    console = Console(file=io.StringIO())
    told = dict(on_steps=lambda pair, curves: None, on_finished=lambda folder: None)
    Editor(method, RunDirectory(folder), 0, False, together, Stop(), console, CPU, **told).edit_all(pairs)


def test_an_edit_that_was_interrupted_costs_all_that_led_to_it(clock, tmp_path):
    """Three steps in one process, one in the next: 40 s. It used to say 10, the last process alone."""
    with pytest.raises(Interrupted):
        edit(Ticking(clock, interrupted_after=3), tmp_path, "a")
    edit(Ticking(clock), tmp_path, "a")
    assert FinishedEdit(tmp_path / "edits" / "a").cost.seconds == 40


def test_edits_of_one_pass_share_its_seconds(clock, tmp_path):
    """Two targets in one pass of 40 s: 20 s each, also where the pass was interrupted."""
    with pytest.raises(Interrupted):
        edit(Ticking(clock, interrupted_after=2), tmp_path, "a", "b", together=2)
    edit(Ticking(clock), tmp_path, "a", "b", together=2)
    assert [FinishedEdit(tmp_path / "edits" / name).cost.seconds for name in "ab"] == [20, 20]


def test_the_higher_peak_counts():
    """Over the processes of one edit seconds add up and peaks do not; an unknown peak hides no known one."""
    assert Cost(seconds=1, peak_memory_gib=3) + Cost(seconds=2, peak_memory_gib=2) == Cost(seconds=3, peak_memory_gib=3)
    assert (Cost(seconds=1) + Cost(seconds=2, peak_memory_gib=2)).peak_memory_gib == 2
    assert (Cost(seconds=1) + Cost(seconds=2)).peak_memory_gib is None
    began, went_on = Cost(device="cpu a"), Cost(device="cuda b")
    assert (began + went_on + went_on).device == "cpu a + cuda b"


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="the peak is reset through Linux's /proc")
def test_a_peak_is_of_what_follows_the_reset():
    """A quarter of a GiB, freed again: seen once, and not by the next edit, as getrusage's peak would be."""
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    with mmap.mmap(-1, 2**28) as block:  # malloc might keep what is freed
        for page in range(0, 2**28, mmap.PAGESIZE):
            block[page] = 1
    assert peak_memory(CPU) - before == pytest.approx(0.25, abs=0.05)
    reset_peak_memory(CPU)
    assert peak_memory(CPU) < before + 0.05


def test_no_peak_where_the_system_says_none(monkeypatch, tmp_path):
    """Without /proc it is getrusage's, which is at least as high; where there is none either, an edit has no peak."""
    known = peak_memory(CPU)
    monkeypatch.setattr(cost, "STATUS", tmp_path / "status")
    monkeypatch.setattr(cost, "CLEAR_REFS", tmp_path / "nowhere" / "clear_refs")
    reset_peak_memory(CPU)
    assert peak_memory(CPU) == pytest.approx(known, rel=0.5)
    monkeypatch.setitem(__import__("sys").modules, "resource", None)
    assert peak_memory(CPU) is None


@pytest.mark.parametrize(
    ("record", "known"),
    [
        ({"status": "finished", "seconds": 2.0, "peak_memory_gib": 0.5}, Cost(seconds=2.0, peak_memory_gib=0.5)),
        ({"status": "finished", "seconds": 2, "device": "cpu a"}, Cost(seconds=2.0, device="cpu a")),
        ({"status": "finished", "seconds": 2.0}, Cost(seconds=2.0)),
        ({"status": "finished", "seconds": 2.0, "peak_memory_gib": None}, Cost(seconds=2.0)),
        ({"status": "finished"}, None),
        ({"status": "failed", "seconds": 2.0}, None),
    ],
)
def test_records_of_every_version_are_read(tmp_path, record, known):
    """Earlier versions kept seconds alone; a pair that failed has cost nothing that a table could show."""
    texts = {"source_prompt": "a", "target_prompt": "b"}
    (tmp_path / "edit.json").write_text(json.dumps(record | texts))
    assert FinishedEdit(tmp_path).cost == known
