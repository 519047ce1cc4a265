"""One writer at a time, between programs."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from assd.runs.lock import BusyError, briefly_alone, holder, one_writer
from tests.commands import ROOT

HOLDING = """
import sys
from pathlib import Path
from assd.runs.lock import one_writer
with one_writer(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder, *part):
    """Another program that holds a folder until its input ends, or until it is killed."""
    command = [sys.executable, "-c", HOLDING, str(folder), *part]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"SLURM_JOB_ID": "4711"})  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.end_to_end
def test_a_second_writer_is_told_who_holds_it(tmp_path):
    """The message has process, machine, Slurm job and command of the first, and what to do; afterwards it is free."""
    process = hold(tmp_path)
    with pytest.raises(BusyError) as error, one_writer(tmp_path):
        pass
    for part in (f"process {process.pid}", socket.gethostname(), "Slurm job 4711", str(tmp_path), "output="):
        assert part in str(error.value)
    process.communicate()
    with one_writer(tmp_path):
        pass


@pytest.mark.end_to_end
def test_a_killed_writer_holds_nothing(tmp_path):
    """The system gives the lock back: nobody has to remove a file by hand."""
    process = hold(tmp_path)
    process.kill()
    process.communicate()
    with one_writer(tmp_path):
        assert str(os.getpid()) in holder(tmp_path / ".writer.json")


@pytest.mark.end_to_end
def test_parts_of_one_run_have_writers_of_their_own(tmp_path):
    """Jobs that share a run hold their own parts; two of the same part do not go together."""
    process = hold(tmp_path, "-1-of-2")
    with one_writer(tmp_path, "-2-of-2"):
        pass
    with pytest.raises(BusyError, match="is being written by"), one_writer(tmp_path, "-1-of-2"):
        pass
    process.communicate()


def test_a_folder_is_free_after_an_error(tmp_path):
    """Whatever happens within, the next one may write."""
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path):
        raise ZeroDivisionError
    with one_writer(tmp_path / "new" / "folder"), one_writer(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "here"}'])
def test_a_note_that_cannot_be_read_is_another_program(tmp_path, content):
    """A lock whose holder has not yet said who it is, or whose note is damaged, still names a holder."""
    (tmp_path / "w.json").write_text(content)
    assert holder(tmp_path / "w.json") == "another program"


def test_shared_files_are_changed_one_after_another(tmp_path):
    """Eight threads that each read, wait and write count to eight."""
    counter = tmp_path / "count"
    counter.write_text("0")

    def add():
        with briefly_alone(tmp_path):
            counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "8"
