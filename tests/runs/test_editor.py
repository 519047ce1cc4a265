"""The editor over a run's pairs: one that goes wrong never stops the others, and a signal stops where all is saved."""

import io
import os
import signal
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from assd.data.pairs import Canvas, Footage, Prompts, TextVideoPair
from assd.data.video import read_video, to_bytes
from assd.errors import DivergedError, InputError, NotHereError
from assd.methods.method import Edit
from assd.runs.directory import EditDirectory, RunDirectory
from assd.runs.editor import Editor, summary_of
from assd.runs.interrupt import Stop, Stopped, hand_on, stopping_on_signals
from assd.runs.lock import one_writer
from tests.commands import contents, record, steps

CANVAS = Canvas(2, 8, 8)
FOOTAGE = Footage(torch.zeros(2, 3, 8, 8), 8.0)


class Counting:
    """A method of three steps, a checkpoint after each, that does to each pair what it is told."""

    num_steps, canvas = 3, CANVAS

    def __init__(self, **told):
        self.told, self.calls = told, []

    def __call__(self, footage, source, requests, clip, advance=lambda step: None):
        self.calls.append([request.target for request in requests])
        for step in range(requests[0].begin, self.num_steps):
            for request in requests:
                if request.target in self.told:
                    self.told[request.target]()
                request.checkpoint({"step": step + 1}, [{"step": step}])
            advance(step + 1)
        return [Edit(footage.frames, latents={"Z": torch.zeros(1)}) for _ in requests]


def pair(name, clip=None, read=lambda canvas: FOOTAGE):
    """A pair that becomes its own name."""
    return TextVideoPair(name, Prompts("source", name), read, clip or name, CANVAS)


@pytest.fixture
def editor(tmp_path):
    """Makes an editor over a run below `tmp_path`, which notes the pairs that are finished."""

    def make(method, together=1, stop=None):
        console, finished = Console(file=io.StringIO(), width=500), []
        return Editor(
            method, RunDirectory(tmp_path), 0, False, together, stop or Stop(), console, torch.device("cpu"),
            on_steps=lambda pair, curves: None, on_finished=finished.append,
        ), finished  # fmt: skip

    return make


def raising(error):
    """A function that raises."""

    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("a word is unknown"), "a word is unknown"),
        (torch.OutOfMemoryError("CUDA out of memory"), "targets_together"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ZeroDivisionError("division"), "ZeroDivisionError: division (unexpected: see traceback.txt"),
    ],
)
def test_one_bad_pair_does_not_stop_the_others(editor, tmp_path, error, said):
    """Whatever is raised: the reason is kept and said, and the pairs before and after are finished."""
    edit, finished = editor(Counting(b=raising(error)))
    edit.edit_all([pair(name) for name in "abc"])
    assert [folder.pair.id for folder in finished] == ["a", "c"]
    assert edit.failed == ["b"]
    assert said in edit.problems["b"]
    assert record(tmp_path / "edits" / "b")["reason"] == edit.problems["b"]
    assert (tmp_path / "edits" / "b" / "traceback.txt").exists() == isinstance(error, ZeroDivisionError)
    assert "1 of 3 pairs could not be edited (b)" in summary_of(edit, 3)


def test_what_diverged_would_diverge_again(editor):
    """The same command is no advice then; a pair whose video is elsewhere is left out and is no failure."""

    def gone(canvas):
        raise NotHereError("get it elsewhere")

    edit, _ = editor(Counting(b=raising(DivergedError("NaN"))))
    edit.edit_all([pair("a", read=gone), pair("b")])
    assert (edit.failed, edit.diverged) == (["b"], ["b"])
    assert set(edit.problems) == {"a", "b"}
    assert "would diverge again" in summary_of(edit, 2)
    assert "tries the failed ones again" not in summary_of(edit, 2)


def test_a_pair_of_another_job_is_left_to_it(editor, tmp_path):
    """It is busy and no failure; the others are edited, and nothing is written beside what the other job writes."""
    edit, finished = editor(Counting())
    busy = tmp_path / "edits" / "b"
    with one_writer(busy):
        before = contents(busy)
        edit.edit_all([pair(name) for name in "abc"])
        assert contents(busy) == before
    assert [folder.pair.id for folder in finished] == ["a", "c"]
    assert (edit.busy, edit.failed) == (["b"], [])
    assert "is being written by" in edit.problems["b"]
    assert "1 of 3 pairs were left to another job (b)" in summary_of(edit, 3)


def test_why_a_pair_failed_is_written_under_its_lock(editor, tmp_path, monkeypatch):
    """Else the reason could take the place of a result that another job has just finished."""
    fail = EditDirectory.fail

    def fail_alone(folder, error, seed):
        with pytest.raises(InputError, match="is being written by"), one_writer(folder.path):
            pass
        fail(folder, error, seed)

    monkeypatch.setattr(EditDirectory, "fail", fail_alone)
    edit, _ = editor(Counting(a=raising(InputError("a word is unknown"))))
    edit.edit_all([pair("a")])
    assert record(tmp_path / "edits" / "a")["reason"] == "a word is unknown"


@pytest.mark.parametrize("error", [InputError("scores.csv is damaged"), OSError(28, "No space left on device")])
def test_what_cannot_be_scored_costs_one_pair(editor, tmp_path, error):
    """Its edit stays finished, the reason is its problem, and the pairs after it are edited and scored."""
    edit, finished = editor(Counting())

    def score(folder):
        finished.append(folder)
        if folder.pair.id == "b":
            raise error

    edit = replace(edit, on_finished=score)
    edit.edit_all([pair(name) for name in "abc"])
    assert [folder.pair.id for folder in finished] == ["a", "b", "c"]
    assert record(tmp_path / "edits" / "b")["status"] == "finished"
    assert str(error) in edit.problems["b"]
    assert (edit.unscored, edit.failed) == (["b"], [])
    assert "1 of 3 pairs could not be scored (b)" in summary_of(edit, 3)


def test_an_id_that_is_no_folder_costs_one_pair(editor):
    """It is noted, and the others are edited."""
    edit, finished = editor(Counting())
    edit.edit_all([pair("../out"), pair("b")])
    assert [folder.pair.id for folder in finished] == ["b"]
    assert "no plain folder name" in edit.problems["../out"]


def test_targets_of_one_clip_share_a_call(editor):
    """Two at a time, of one clip, where they are equally far; one that spoils a call is tried alone."""
    method = Counting()
    edit, _ = editor(method, together=2)
    edit.edit_all([pair("a", "clip"), pair("x"), pair("b", "clip"), pair("c", "clip")])
    assert method.calls == [["a", "b"], ["c"], ["x"]]
    method = Counting(bad=raising(InputError("unknown word")))
    edit, finished = editor(method, together=2)
    edit.edit_all([pair("good", "other"), pair("bad", "other")])
    assert method.calls == [["good", "bad"], ["good"], ["bad"]]
    assert [folder.pair.id for folder in finished] == ["good"]


def test_finished_pairs_are_only_checked(editor):
    """The method is not asked again, and they are handed on to be scored."""
    pairs = [pair("a"), pair("b")]
    editor(Counting())[0].edit_all(pairs)
    method = Counting()
    edit, finished = editor(method)
    edit.edit_all(pairs)
    assert method.calls == []
    assert [folder.pair.id for folder in finished] == ["a", "b"]


def test_frames_may_be_asked_for_afterwards(editor, tmp_path):
    """Of finished pairs those that are missing are written, bit by bit as the videos have them; nothing is edited."""
    editor(Counting())[0].edit_all([pair("a")])
    method, folder = Counting(), tmp_path / "edits" / "a"
    edit = replace(editor(method)[0], save_frames=True)
    for _ in range(2):
        edit.edit_all([pair("a")])
        assert torch.equal(read_video(folder / "source", None).frames, to_bytes(FOOTAGE.frames))
        assert torch.equal(read_video(folder / "edited", None).frames, read_video(folder / "edited.mkv", None).frames)
        (folder / "edited" / "00001.png").unlink()
    assert method.calls == []


def test_a_pair_that_another_job_has_finished_meanwhile(editor):
    """It is not edited again, and those that were to share its call are edited without it."""
    method, pairs = Counting(), [pair("a", "clip"), pair("b", "clip")]
    edit, _ = editor(method, together=2)
    (group,) = edit.groups(pairs)
    editor(Counting())[0].edit_all(pairs[:1])
    edit.attempt(group, Progress(console=edit.console))
    assert method.calls == [["b"]]


def test_a_signal_stops_at_a_step_that_is_saved(editor, tmp_path):
    """SIGTERM in the middle of a step: the step ends, its checkpoint is there, no pair has failed, and it goes on."""
    sent = []

    def terminate():
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    method = Counting(b=terminate)
    with stopping_on_signals() as stop:
        edit, _ = editor(method, stop=stop)
        with pytest.raises(Stopped) as stopped:
            edit.edit_all([pair("a"), pair("b"), pair("c")])
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert not edit.problems
    assert not (tmp_path / "edits" / "b" / "edit.json").exists()
    assert steps(tmp_path / "edits" / "b") == [0]
    edit, finished = editor(method)
    edit.edit_all([pair("a"), pair("b"), pair("c")])
    assert [folder.pair.id for folder in finished] == ["a", "b", "c"]
    assert steps(tmp_path / "edits" / "b") == [0, 1, 2]


def test_handlers_return_and_the_second_signal_is_as_before():
    """After the context, and at a second signal within it, what handled the signal before handles it again."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with stopping_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.requested[0], seen) == (signal.SIGTERM, [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_launchers_handler_requeues():
    """What handled a preemption before is called once all is saved; Python's own interruption is not raised again."""
    seen = []
    hand_on(Stopped(signal.SIGUSR2, lambda number, frame: seen.append(number)))
    hand_on(Stopped(signal.SIGINT, signal.default_int_handler))
    hand_on(Stopped(signal.SIGTERM, signal.SIG_DFL))
    assert seen == [signal.SIGUSR2]
