"""W&B as a copy: what the offline file holds, read back; and that W&B never stops a run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from assd.data.pairs import Canvas, Prompts, TextVideoPair
from assd.data.video import write_video
from assd.errors import InputError
from assd.runs.wandb import WandB
from evaluation.scores import COLUMNS, row

pytestmark = pytest.mark.end_to_end  # W&B works in a process of its own

METRIC = "CLIP text (embedded CLIP, cosine)"
PAIRS = [TextVideoPair(f"p{i}", Prompts("a", "b"), lambda canvas: None, "p", Canvas(2, 16, 16)) for i in range(2)]
CURVES = [{"step": i, "t": 100 + i, "gradient_norm": 1.0 / (i + 1)} for i in range(10)]


def scores(pair: str, value: float) -> pd.DataFrame:
    """One metric of an edit and its source."""
    rows = [row(pair, "edited", METRIC, "higher", value), row(pair, "source", METRIC, "higher", 0.2)]
    return pd.DataFrame(rows, columns=COLUMNS)


def follow(tracking: WandB, directory: Path) -> None:
    """A run of two pairs."""
    directory.mkdir(exist_ok=True)
    with tracking.follow(directory, {"method": {"num_steps": 10}}, num_steps=10) as copy:
        for number, value in enumerate((0.6, 0.8)):
            copy.steps(number, CURVES)
            copy.scores(number, scores(f"p{number}", value))
        for name in ("source", "edited"):
            (directory / "edits" / "p0").mkdir(parents=True, exist_ok=True)
            write_video(directory / "edits" / "p0" / f"{name}.mp4", torch.zeros(2, 16, 16, 3, dtype=torch.uint8), 8.0)
        copy.summary(PAIRS, directory / "edits", pd.concat([scores("p0", 0.6), scores("p1", 0.8)]))


def test_the_offline_file_read_back(tmp_path, caplog, read_back):
    """Curves at every fifth step and the last, both pairs' scores, means, configuration, group and id are there."""
    follow(WandB(group="sweep", every=5), tmp_path)
    found = read_back(tmp_path)
    curves = [item for item in found["history"] if "optimisation/step" in item]
    assert [item["optimisation/step"] for item in curves] == [0, 5, 9] * 2
    assert [item["_step"] for item in curves] == [0, 5, 9, 11, 16, 20]
    assert curves[1]["optimisation/gradient_norm"] == pytest.approx(1 / 6)
    assert [i[f"edited/{METRIC}"] for i in found["history"] if f"edited/{METRIC}" in i] == [0.6, 0.8]
    assert found["summary"][f"mean/edited/{METRIC}"] == pytest.approx(0.7)
    assert found["summary"][f"mean/source/{METRIC}"] == pytest.approx(0.2)
    assert found["summary"]["edits.nrows"] == 1  # the one pair that has videos
    run = found["run"]
    assert (run["run_group"], run["job_type"], run["run_id"]) == (
        "sweep",
        "edit",
        (tmp_path / "wandb_id.txt").read_text().strip(),
    )
    assert run["config"]["update"]["method"] == {"num_steps": 10}
    assert found["exit"] == 0
    assert not [record for record in caplog.records if record.name == "assd.runs.wandb"]


def test_pairs_that_take_turns(tmp_path, read_back):
    """Edited together, pairs report in turns: W&B drops a step that has passed, so none may, and all points arrive."""
    tmp_path.joinpath("run").mkdir()
    with WandB(every=1).follow(tmp_path / "run", {}, num_steps=10) as copy:
        for half in (CURVES[:5], CURVES[5:]):
            for number in range(2):
                copy.steps(number, half)
        for number in range(2):
            copy.scores(number, scores(f"p{number}", 0.5))
        copy.summary(PAIRS, tmp_path / "edits", scores("p0", 0.5))
    history = read_back(tmp_path / "run")["history"]
    seen = [(i["optimisation/pair"], i["optimisation/step"]) for i in history if "optimisation/step" in i]
    assert sorted(seen) == [(number, step) for number in range(2) for step in range(10)]
    assert len([item for item in history if f"edited/{METRIC}" in item]) == 2
    assert len([item for item in history if any(key.startswith("edits") for key in item)]) == 1


def test_a_second_start_goes_on_under_the_same_id(tmp_path, read_back):
    """Two offline files, one id."""
    for _ in range(2):
        follow(WandB(), tmp_path)
        time.sleep(1.1)  # W&B names its folders by the second
    found = read_back(tmp_path)
    assert found["ids"] == [(tmp_path / "wandb_id.txt").read_text().strip()] * 2


def test_a_failing_run_is_marked(tmp_path, read_back):
    """An error passes through, and W&B knows of it."""
    with pytest.raises(ZeroDivisionError), WandB().follow(tmp_path, {}, 1):
        raise ZeroDivisionError
    assert read_back(tmp_path)["exit"] == 1


def test_disabled_leaves_nothing(tmp_path):
    """No folder, no id."""
    follow(WandB(mode="disabled"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["edits"]  # the test's own


def test_a_dead_server_means_offline(tmp_path, monkeypatch, caplog, read_back):
    """Online with a closed port: the data stay here, and it costs seconds."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    started = time.monotonic()
    follow(WandB(mode="online", init_timeout=2), tmp_path)
    assert time.monotonic() - started < 60
    assert "stay on this machine" in caplog.text
    assert read_back(tmp_path)["summary"][f"mean/edited/{METRIC}"] == pytest.approx(0.7)


def test_a_broken_call_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    """W&B raising in the middle is noted once."""
    import wandb  # noqa: PLC0415

    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(wandb.Run, "log", broken)
    follow(WandB(), tmp_path)
    assert caplog.text.count("the run goes on without it") == 1
    assert wandb.run is None  # or the next run of a sweep would be written into this one


KILLED = """
import sys, time
from pathlib import Path
from assd.runs.wandb import WandB
with WandB(every=1).follow(Path(sys.argv[1]), {}, 10**6) as copy:
    for step in range(10**6):
        copy.steps(0, [{"step": step, "gradient_norm": 1.0}])
        print(step, time.time(), flush=True)
        time.sleep(0.05)
"""


def test_a_killed_process_loses_at_most_two_seconds(tmp_path, read_back):
    """SIGKILL after a while: the last point in the file is at most two seconds older than the last one made."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    made = {}
    for line in process.stdout:
        step, at = line.split()
        made[int(step)] = float(at)
        if len(made) == 120:
            os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # the writer beside it ends with its parent
    kept = max(item["optimisation/step"] for item in read_back(tmp_path)["history"])
    assert max(made.values()) - made[kept] < 2


def test_modes_are_named():
    """An unknown mode lists the known ones."""
    with pytest.raises(InputError, match="offline, online, disabled"):
        WandB(mode="on")
