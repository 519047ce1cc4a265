"""The device that a configuration names, and the time at which it is done."""

import re
import time

import torch

from assd.errors import require


def resolve_device(device: str) -> torch.device:
    """A torch device; `auto` is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    require(
        re.fullmatch(r"cpu|cuda(:\d+)?", device) is not None,
        f"device must be auto, cpu, cuda or cuda:<number>; got {device!r}",
    )
    chosen = torch.device(device)
    require(
        chosen.type == "cpu" or (chosen.index or 0) < torch.cuda.device_count(),
        f"device is {device!r}, and torch sees {torch.cuda.device_count()} GPUs here: use device=auto or device=cpu",
    )
    return chosen


def wall_clock(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
