"""Edits of both variants, pass by pass, and the same without TokenFlow."""

import re
from collections.abc import Iterator

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from assd.diffusion.guidance import guided_prediction
from assd.diffusion.inversion import DDIM, downwards
from assd.methods.tokenflow import TokenFlow
from tests.parity.points import Case, Point
from tests.parity.tokenflow.setup import FINAL, LATER, NEGATIVE, TARGET, UNET, WATCHED_BLOCK, by_frame
from tests.parity.tokenflow.watch import Watched

MARGIN = 5e-6  # of a cosine; float32 instead of float64 moves the smallest margins by at most 1.4e-6


def edit_points(case: Case, tokenflow: TokenFlow) -> Iterator[Point]:
    """The passes that are recorded, every latent, and every nearest neighbour."""
    name, edit = tokenflow.variant, Watched(tokenflow)
    passes = re.compile(rf"{name}\.step(\d+)\.(?:pivot|batch(\d+))\.(\w+)")
    for point, found in ((point, passes.fullmatch(point)) for point in case.arrays.files):
        if found:
            step, batch, what = int(found[1]), found[2] and int(found[2]), found[3]
            yield pass_point(case, point, edit, step, batch, what)
    yield case.of_largest(f"{name}.x", torch.stack([by_frame(x) for x in edit.x]), FINAL)
    if f"{name}.nn_all" in case:
        yield from nearest_points(case, name, edit)


def pass_point(case: Case, point: str, edit: Watched, step: int, batch: int | None, what: str) -> Point:
    """What is recorded of one pass: the prediction, an output in the watched block, or nearest neighbours there."""
    number, limit = edit.number(step, batch), LATER if step else UNET
    if what == "unet":
        return case.of_largest(point, rearrange(edit.model.predictions[number], "s c f h w -> (s f) c h w"), limit)
    if what in ("norm1", "attn1"):
        feature = edit.model.features.store.get(number, f"{WATCHED_BLOCK}.{what}")
        return case.of_largest(point, rearrange(feature, "(s k) l d -> s k l d", s=3), limit)
    key = {"nn_own": batch, "nn_prev": batch - 1}[what]
    return case.exact(point, edit.nearest[number, f"{WATCHED_BLOCK}.attn1", key][0])


def nearest_points(case: Case, name: str, edit: Watched) -> Iterator[Point]:
    """All indices of an edit, and the smallest margins."""
    layers = [f"{block}.attn1" for block in case.facts["nn_layer_order"]]
    margins, indices = np.full(case[f"{name}.nn_margin"].shape, np.inf), []
    for step, batch, candidate, key in edit.candidates():
        found = [edit.nearest[edit.number(step, batch), layer, key] for layer in layers]
        indices += [index.flatten() for index, _ in found]
        margins[step, batch, candidate] = min(margin for _, margin in found)
    yield case.exact(f"{name}.nn_all", torch.cat(indices))
    ours, theirs = case.pair(f"{name}.nn_margin", margins)
    differ = ours != theirs  # both are infinite where there is no candidate
    yield Point(f"{name}.nn_margin", float(np.abs(ours[differ] - theirs[differ]).max(initial=0)), MARGIN)


def per_frame_edit(case: Case, sdedit: TokenFlow) -> Iterator[Point]:
    """Not TokenFlow: every frame sampled alone, from the same start."""
    model, z = sdedit.model, rearrange(case.tensor("start.sdedit"), "f c h w -> 1 c f h w")

    def predict(z: Tensor, t: int) -> Tensor:
        return guided_prediction(model, z, t, (TARGET,), sdedit.guidance_scale, NEGATIVE)

    for t, to in downwards(sdedit.timesteps):
        z = DDIM(model.schedule, model.prediction).sampling_step(predict, z, t, to)
    yield case.of_largest("sdedit.per_frame_final", by_frame(z[0]), FINAL)
