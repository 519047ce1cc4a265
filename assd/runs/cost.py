"""What an edit costs: seconds, and GiB of memory at its peak."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from assd.device import wall_clock
from assd.runs.environment import device_name

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux
JOINED = " + "
RESET_PEAK = "5"  # written to clear_refs, it lowers VmHWM to what is resident now (proc(5))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one edit, over all processes that worked on it.

    seconds          from reading the frames to the decoded edit; of an edit that was interrupted, those up to each
                     checkpoint from which it went on. Edits made in one pass have equal parts of its seconds
    peak_memory_gib  on a GPU what torch had allocated at most; else the process's resident set, with all that it held
                     before, since the edit began (where the system can't say that, since the process began).
                     Edits made in one pass have its peak. None where nobody can say
    device           where that was, such as `cpu x86_64`; of several, joined by ` + `. None where it is not known
    """

    seconds: float = 0.0
    peak_memory_gib: float | None = None
    device: str | None = None

    def __add__(self, later: "Cost") -> "Cost":
        """The seconds of both, the higher peak."""
        peaks = [peak for peak in (self.peak_memory_gib, later.peak_memory_gib) if peak is not None]
        devices = [name for part in (self.device, later.device) if part for name in part.split(JOINED)]
        return Cost(
            seconds=self.seconds + later.seconds,
            peak_memory_gib=max(peaks, default=None),
            device=JOINED.join(dict.fromkeys(devices)) or None,
        )

    def rounded(self) -> dict[str, float | str | None]:
        """For people: seconds to two places, GiB to three."""
        peak = None if self.peak_memory_gib is None else round(self.peak_memory_gib, 3)
        return {"seconds": round(self.seconds, 2), "peak_memory_gib": peak, "device": self.device}


NOTHING = Cost()


class Meter:
    """Measures one edit from now on.

    device    where the networks are
    before    what the edit had cost when it was interrupted
    together  how many edits are made in this pass
    """

    def __init__(self, device: torch.device, before: Cost = NOTHING, together: int = 1):
        self.device, self.before, self.together = device, before, together
        self.started = wall_clock(device)  # which also wakes a GPU: before that it has no peak to reset
        reset_peak_memory(device)

    def cost(self) -> Cost:
        """Up to now."""
        seconds = (wall_clock(self.device) - self.started) / self.together
        device = f"{self.device.type} {device_name(self.device)}"
        return self.before + Cost(seconds=seconds, peak_memory_gib=peak_memory(self.device), device=device)


def reset_peak_memory(device: torch.device) -> None:
    """From here on `peak_memory` knows of no earlier peak, where the system can forget it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            CLEAR_REFS.write_text(RESET_PEAK)


def peak_memory(device: torch.device) -> float | None:
    """GiB since `reset_peak_memory`: what torch allocated at most on a GPU, else the process's largest resident set.

    Without Linux's /proc since the process began; None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20  # from KiB
    return peak_of_process()


def peak_of_process() -> float | None:
    """GiB since the process began, by getrusage, which Windows does not have."""
    try:
        import resource  # noqa: PLC0415
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
