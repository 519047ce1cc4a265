"""A sweep on a real Slurm: preempted, on a node that dies, with one bad pair, and continued by the same command.

`make cluster` runs it, and `.ci/run` with it; it takes a few minutes, and Debian's packages.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from assd.data.video import to_bytes, write_video
from assd.runs.reader import FinishedEdit
from assd.runs.sweep import sweep_runs
from assd.shapes.corpus import clip_pairs
from assd.shapes.dataset import footage

ROOT = Path(__file__).parents[2]
SLURM = Path(__file__).with_name("slurm.sh")
ABLATIONS = ("assd_only", "video_dds")
STEPS = 24
BAD = "03-third"

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="no Slurm here: tests/cluster/slurm.sh install"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm of two nodes below a folder of its own; every command of this process finds it."""
    folder = tmp_path_factory.mktemp("slurm")
    log = (folder / "up.log").open("w")  # a file: its daemons would hold a pipe open
    subprocess.run([SLURM, "up", folder], check=True, stdout=log, stderr=log)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    subprocess.run([SLURM, "down", folder], check=False, stdout=log, stderr=log)
    del os.environ["SLURM_CONF"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos and their prompts; the third is no video yet."""
    folder = tmp_path_factory.mktemp("clips")
    lines = ["video,source_prompt,target_prompt"]
    for name, pair in zip(("first", "second", "third"), clip_pairs()):
        write_video(folder / f"{name}.mp4", to_bytes(footage(pair).frames), 8.0)
        lines.append(f"{name}.mp4,{pair.source.caption},{pair.target.caption}")
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n")
    shutil.move(folder / "third.mp4", folder / "third.whole")
    (folder / "third.mp4").write_bytes(b"this is no video")
    return folder


def sweep(clips: Path, output: Path, *launcher: str) -> list[str]:
    """The command of a sweep."""
    return [
        sys.executable, "-m", "assd.run", "-m", *launcher, f"+ablation={','.join(ABLATIONS)}", f"output={output}",
        "dataset=folder", f"dataset.path={clips}", f"steps.distillation={STEPS}", "device=cpu",
        "metric=[clip_text,psnr]", "tracking.mode=disabled",
    ]  # fmt: skip


ON_SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.timeout_min=60", "hydra.launcher.cpus_per_task=2",
    "hydra.launcher.mem_gb=4",
)  # fmt: skip


def until(holds: Callable[[], object], what: str, seconds: float = 240) -> None:
    """Waits for something to hold."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.5)


def queue() -> dict[str, tuple[str, str, str]]:
    """State, node and restarts of each job in Slurm's queue."""
    command = ["squeue", "-h", "-r", "-o", "%i|%T|%N|%r"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {job: (state, node, reason) for job, state, node, reason in (line.split("|") for line in lines)}


def job_on(node: str) -> str | None:
    """The job that runs on a node."""
    return next((job for job, (state, where, _) in queue().items() if (state, where) == ("RUNNING", node)), None)


def is_under_way(run: Path) -> bool:
    """Whether the run has a checkpoint of a pair that is not finished."""
    return any(run.glob("edits/*/checkpoint.safetensors"))


def kill_node(cluster: Path, node: str) -> None:
    """Its daemon, the steps of its job and all their processes, at once."""
    command = ["squeue", "-h", "-r", "-w", node, "-o", "%A"]
    number = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    steps = [p for p in psutil.process_iter(["cmdline"]) if f"slurmstepd: [{number}." in " ".join(p.cmdline())]
    below = [child for step in steps for child in step.children(recursive=True)]
    daemon = psutil.Process(int((cluster / "run" / f"slurmd.{node}.pid").read_text()))
    for process in (daemon, *steps, *below):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def start_again(job: str) -> None:
    """A job that is queued again waits two minutes, of which a test needs none: only until its node is free."""
    until(lambda: queue().get(job, ("",))[0] == "PENDING", f"{job} is queued again")
    time.sleep(8)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def disturb(cluster: Path) -> None:
    """Preempts the job on one node, kills the other node under its job, and lets both begin again."""
    preempted, on_dead_node = job_on("n1"), job_on("n2")
    subprocess.run(["scancel", "--signal=USR2", preempted], check=True)
    kill_node(cluster, "n2")
    start_again(preempted)
    until(lambda: queue().get(on_dead_node, ("",))[0] == "PENDING", "the dead node's job is queued again")
    subprocess.run(["slurmd", "-N", "n2"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start_again(on_dead_node)


def test_a_sweep_survives_a_cluster(cluster, clips, tmp_path):
    """Preempted, robbed of a node and with a bad pair, it ends as a local sweep does, bit for bit."""
    output, environment = tmp_path / "sweep", os.environ | {"OMP_NUM_THREADS": "1"}
    launched = subprocess.Popen(
        sweep(clips, output, *ON_SLURM), cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until(lambda: sum(map(is_under_way, begun(output))) == 2 or launched.poll() is not None, "both jobs edit")
        assert launched.poll() is None, launched.communicate()[0]
        disturb(cluster)
        said, _ = launched.communicate(timeout=400)
        until(lambda: not queue(), "the other job ends too")  # the launcher ends with the first one that failed
    finally:
        launched.kill()
    assert launched.returncode == 1, said

    runs = sweep_runs(output)
    assert len(runs) == len(ABLATIONS), said
    for run in runs:
        states = {edit.name: FinishedEdit(edit).record.get("status") for edit in sorted((run / "edits").iterdir())}
        assert states == {"01-first": "finished", "02-second": "finished", BAD: "failed"}, f"{run}: {said}"
        assert "third.mp4" in FinishedEdit(run / "edits" / BAD).reason
        steps = [point["step"] for point in FinishedEdit(run / "edits" / "01-first").curves]
        assert steps == list(range(STEPS))

    before = {file: file.stat().st_mtime_ns for run in runs for file in run.glob("edits/0[12]*/edit.json")}
    shutil.move(clips / "third.whole", clips / "third.mp4")
    again = subprocess.run(
        sweep(clips, output, *ON_SLURM), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert "The sweep's report" in again.stdout
    assert before == {file: file.stat().st_mtime_ns for file in before}, "a finished pair was edited again"

    local = tmp_path / "local"
    subprocess.run(sweep(clips, local), cwd=ROOT, env=environment, check=True, capture_output=True)
    for run, same in zip(runs, sweep_runs(local), strict=True):
        assert (run / "scores.csv").read_text() == (same / "scores.csv").read_text()
        for latents in sorted(run.glob("edits/*/latents.safetensors")):
            assert latents.read_bytes() == (same / latents.relative_to(run)).read_bytes()


def begun(output: Path) -> list[Path]:
    """The run directories of a sweep so far."""
    return [folder.parent for folder in output.glob("*/edits")]
