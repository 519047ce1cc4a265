"""The command line as tests start it, within this process or in one of its own, and what it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from assd.data.video import to_bytes, write_video
from assd.shapes.world import Clip, render

ROOT = Path(__file__).parent.parent
PAIR = "01-black-to-green"
QUICK = ["dataset.limit=1", "steps.distillation=2", "method.checkpoint_every=1"]
LIGHT = ["tracking.mode=disabled", "metric=[clip_text]"]  # where a test is not about them
SOURCE, TARGET = "a red circle moving right over snow", "a blue circle moving right over snow"


class Outcome(NamedTuple):
    """How a command ended, and all that it printed."""

    code: int
    text: str

    def says(self, *parts: str) -> bool:
        """Whether all of these were printed, wherever lines were broken."""
        printed = "".join(self.text.split())
        return all("".join(part.split()) in printed for part in parts)


def start(output: Path, *overrides: str) -> subprocess.Popen:
    """Starts `python -m assd.run` in a process of its own."""
    command = [sys.executable, "-m", "assd.run", *overrides, f"output={output}", "device=cpu", *LIGHT]
    environment = os.environ | {"HYDRA_FULL_ERROR": "0"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **streams)


def wait(process: subprocess.Popen) -> Outcome:
    """The end of a process."""
    text, _ = process.communicate(timeout=900)
    return Outcome(process.returncode, text)


def program(*command: str | Path, cwd: Path = ROOT) -> Outcome:
    """Python with these arguments, from its start to its end."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return wait(subprocess.Popen([sys.executable, *map(str, command)], cwd=cwd, **streams))


def edit_folders(output: Path) -> list[Path]:
    """The folders of all pairs of all runs below `output`."""
    return sorted(output.glob("*/edits/*"))


def record(folder: Path) -> dict:
    """edit.json."""
    return json.loads((folder / "edit.json").read_text())


def steps(folder: Path) -> list[int]:
    """The steps in steps.jsonl, in their order."""
    return [json.loads(line)["step"] for line in (folder / "steps.jsonl").read_text().splitlines()]


def latents(folder: Path) -> bytes:
    """The bits of the result."""
    return (folder / "latents.safetensors").read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; a lock's own files aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_clip(path: Path, colour: str = "red") -> Path:
    """An mp4 of 12 frames of the embedded world, as a person might bring one."""
    clip = Clip(colour, "circle", "right", "snow", radius=0.33, x=0.0, y=0.0, travel=0.6, texture=7)
    frames = render(clip).frames
    frames = torch.cat([frames, frames[-1:].expand(4, -1, -1, -1)])
    write_video(path, to_bytes(frames), 8.0)
    return path


def own_video(path: Path, source: str = SOURCE, target: str = TARGET) -> list[str]:
    """The overrides that edit one's own video."""
    return [
        "dataset=video",
        f"dataset.path={path}",
        f"dataset.source_prompt={source}",
        f"dataset.target_prompt={target}",
    ]
