"""Inversions, reconstructions, and the latents with which edits start."""

import re
from collections.abc import Iterator

from torch import Tensor

from assd.methods.method import Request, ignore_progress
from assd.methods.reconstruction import Reconstruction
from assd.methods.recorder import Recorder
from assd.methods.tokenflow import TokenFlow
from assd.methods.tokenflow.editor import Inversion, noise_in
from tests.parity.points import Case, Point
from tests.parity.tokenflow.setup import (
    FINAL,
    SOURCE,
    TARGET,
    UNET,
    RecordingModel,
    by_frame,
    editor,
    footage,
    source_latents,
)


def inversion_points(case: Case, model: RecordingModel) -> Iterator[Point]:
    """Two inversions of all frames, those that are not edited included, and what sampling makes of them again."""
    s = case.settings
    yield from one_inversion(case, "inv10", model, s["inv10"]["steps"], s["inv10"]["save_steps"])
    yield from one_inversion(case, "inv", model, s["n_inversion_steps"], s["n_timesteps"])


def one_inversion(
    case: Case, name: str, model: RecordingModel, inversion_steps: int, sampling_steps: int
) -> Iterator[Point]:
    """The latents kept of it, and its reconstruction."""
    steps = dict(inversion_steps=inversion_steps, sampling_steps=sampling_steps, keyframe_offsets=None)
    tokenflow, Z_ref = editor(case, model, "pnp", **steps), source_latents(case)
    inversion = inverted(tokenflow, Z_ref)
    latents = {tokenflow.inversion_timesteps[-1]: inversion.z, **dict(zip(tokenflow.timesteps, inversion.trajectory))}
    recorded = map(re.compile(rf"{name}\.t(\d+)").fullmatch, case.arrays.files)
    for t in (int(found[1]) for found in recorded if found):
        yield case.of_largest(f"{name}.t{t}", by_frame(latents[t]), UNET)
    again = Reconstruction(model, True, inversion_steps, "target", checkpoint_every=1, checkpoint_seconds=1e9)
    (edit,) = again(footage(Z_ref.shape[1]), SOURCE, [Request(TARGET)], "clip")
    yield case.of_largest(f"{name}.recon", by_frame(edit.latents["Z"]), FINAL)


def inverted(tokenflow: TokenFlow, Z_ref: Tensor) -> Inversion:
    """The method's first phase, by itself."""
    recorder = Recorder([Request(TARGET)], "clip", tokenflow.num_steps, every=tokenflow.num_steps, seconds=1e9,
                        advance=ignore_progress, advice="")  # fmt: skip
    return tokenflow.invert(Z_ref, SOURCE, recorder)


def start_points(case: Case, pnp: TokenFlow, sdedit: TokenFlow) -> Iterator[Point]:
    """Where the edits start."""
    Z_ref = source_latents(case)[:, : pnp.num_frames]
    inversion, noisiest = inverted(pnp, Z_ref), pnp.model.schedule[pnp.inversion_timesteps[-1]]
    yield case.of_largest("start.eps", by_frame(noise_in(inversion.z, Z_ref, noisiest)), UNET)
    for tokenflow in (pnp, sdedit):
        yield case.of_largest(f"start.{tokenflow.variant}", by_frame(tokenflow.started(Z_ref, inversion, "clip")), UNET)
