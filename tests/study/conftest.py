"""Run directories as an editor leaves them, as small as they come, and a study of them."""

# ruff: noqa: PLC0415

import json

import numpy as np
import pytest
import torch

METHODS = ("tokenflow", "fatezero", "video_dds")
SECRET = "5e" * 32


def frames_of(seed: int, shift: int = 0) -> torch.Tensor:
    """A bright square that moves over a pattern."""
    rng = np.random.default_rng(seed)
    still = rng.integers(60, 120, (8, 8, 3)).repeat(12, 0).repeat(12, 1).astype(np.uint8)
    frames = []
    for i in range(8):
        frame = still.copy()
        frame[30:60, 6 * i : 6 * i + 30] = (255 - 60 * shift, 220, 60 * shift)
        frames.append(frame)
    return torch.from_numpy(np.stack(frames))


@pytest.fixture(scope="session")
def make_runs():
    """Makes a sweep's folder: one run for each method, each with the same pairs."""
    from assd.data.video import write_video

    def make(folder, methods=METHODS, pairs=4):
        for number, method in enumerate(methods):
            for pair in range(pairs):
                edit = folder / method / "edits" / f"pair-{pair}"
                edit.mkdir(parents=True)
                write_video(edit / "source.mp4", frames_of(pair), 8.0)
                write_video(edit / "edited.mp4", frames_of(pair, number + 1), 8.0)
                prompts = {"source_prompt": f"square {pair}", "target_prompt": f"<b>red</b> square {pair}"}
                record = {"id": f"pair-{pair}", **prompts, "status": "finished"}
                (edit / "edit.json").write_text(json.dumps(record))
        return folder

    return make


@pytest.fixture(scope="session")
def make_study(make_runs):
    """Makes a study's folder of such runs; returns folder and key."""
    from evaluation.study.edits import named_runs
    from evaluation.study.page import write_study
    from evaluation.study.plan import Plan

    def make(folder, *, design="pairwise", sheets=4, trials=4, broken=2, repeats=1, pairs=4, post=None):
        runs = named_runs([str(make_runs(folder / "sweep", pairs=pairs))])
        plan = Plan(design=design, sheets=sheets, trials=trials, broken=broken, repeats=repeats, seed=3)
        return folder / "study", write_study(runs, folder / "study", plan, SECRET, post=post)

    return make
