"""What a later reader wants to know of a run beside its overrides: the code, the machine, and how it was started."""

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import torch

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "hydra-core",
    "omegaconf",
    "av",
    "numpy",
    "open_clip_torch",
    "torchmetrics",
    "opencv-python-headless",
    "scipy",
)


def environment(device: torch.device) -> dict:
    """Commit, date, versions, device, and the command that started this process: of a cluster's job, its launcher's."""
    return {
        "command": sys.argv,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
        "device": {"type": device.type, "name": device_name(device), "cpu_threads": torch.get_num_threads()},
    }


def device_name(device: torch.device) -> str:
    """The GPU's, or the processor's as far as Python knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The clone's commit, `-dirty` with uncommitted changes; None when this is no clone."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
