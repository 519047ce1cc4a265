"""Run directories as the editor leaves them, written by its own writer, without a model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from torch import Tensor

from assd.config import composed, without
from assd.data.pairs import Footage
from assd.methods.method import Edit
from assd.runs.cost import Cost
from assd.runs.directory import RunDirectory

COST = Cost(seconds=1.0, peak_memory_gib=0.5)


def finished_run(path: Path, edit: Callable[[Footage], Tensor], pairs: int = 2, overrides: Sequence[str] = ()) -> Path:
    """A run of the first so many embedded pairs, in which an edit is what `edit` makes of the pair's footage."""
    cfg = composed([f"dataset.limit={pairs}", "device=cpu", *overrides])
    directory = RunDirectory(path, ["dataset.limit", "device"])
    directory.open(cfg, torch.device("cpu"), without(overrides, ["device", "metric"]))
    for pair in instantiate(cfg.dataset, _convert_="all"):
        footage, folder = pair.read(pair.canvas), directory.edit(pair)
        identity = folder.identity(footage, cfg.seed)
        for step in range(5):
            curve = {"step": step, "t": 500, "gradient_norm": 9.0 - step, "video.mask_coverage": 0.1 * step}
            folder.checkpoint({"step": step + 1}, [curve], identity, COST)
        folder.finish(Edit(edit(footage), footage.frames, {}), footage, identity, COST, save_frames=False)
    return path
