"""Inversion, and edits with every kind of control."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from assd.methods.fatezero.control import Control, ControlledStep
from assd.methods.fatezero.editor import FateZero
from assd.methods.fatezero.layers import Layers
from assd.methods.fatezero.masks import pooled
from assd.methods.fatezero.state import Branch, Inversion
from assd.methods.method import Request, ignore_progress
from assd.methods.recorder import Recorder
from tests.parity.fatezero.setup import (
    EDITED,
    INVERSION,
    STORED,
    Network,
    control_of,
    differences,
    editor,
    modes,
    names,
    prompt,
)
from tests.parity.network import TableModel
from tests.parity.points import Case, Point

NEAR_THRESHOLD = 3  # mask cells that may flip in steps whose latents are not blended


@dataclass
class Seen:
    """What is looked at while an edit runs."""

    latents: list[Tensor] = field(default_factory=list)  # after every step
    words: list[Any] = field(default_factory=list)  # attention to the new words, summed up to every step
    before_blend: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    maps: dict[tuple[str, int], Tensor] = field(default_factory=dict)  # (layer, step) -> before and after the control

    def checkpoint(self, checkpoint: dict, curves: list) -> None:
        """After every step."""
        self.latents.append(checkpoint["Z"].clone())
        self.words.append(checkpoint["words"])

    @contextlib.contextmanager
    def looking(self, model: TableModel) -> Iterator[None]:
        """Within it the parts of an edit are watched, and do what they do."""
        predict, changed, blended = model.predict, ControlledStep.__call__, ControlledStep.blended

        def watched_predict(*args: Any) -> Tensor:
            self.predictions.append(predict(*args))
            return self.predictions[-1]

        def watched_change(step: ControlledStep, name: str, maps: Tensor) -> Tensor:
            before = sliced(maps[-step.layers.frames :]).clone()
            maps = changed(step, name, maps)
            self.maps[name, step.step] = torch.stack([before, sliced(maps[-step.layers.frames :])])
            return maps

        def watched_blend(step: ControlledStep, z: Tensor, *others: Tensor) -> Tensor:
            self.before_blend.append(z[0])
            return blended(step, z, *others)

        with (
            mock.patch.object(model, "predict", watched_predict),
            mock.patch.object(ControlledStep, "__call__", watched_change),
            mock.patch.object(ControlledStep, "blended", watched_blend),
        ):
            yield


def sliced(maps: Tensor) -> Tensor:
    """The recorded part of a map: frame 1, head 3, four queries, at most 77 keys."""
    return maps[1, 3, :4, :77]


def edits(case: Case, network: Network, part: str) -> Iterator[Point]:
    """A part: its inversion, the maps of it, and the edits of each mode from there."""
    of_part = [(mode, settings) for mode, settings in modes(case) if settings["part"] == part]
    first, source = editor(network, of_part[0][1]), Request(network.prompt("source"))
    inversion = inversion_of(case, network, part, first)
    with first.video_network(inversion, first.weights(inversion.trajectory[0][0], "", recorder(first, source))[0]):
        first.invert(inversion, recorder(first, source))
        yield from inversion_points(case, part, inversion)
        for mode, settings in of_part:
            method, seen, target = editor(network, settings), Seen(), network.prompt(settings["target"])
            branch = Branch(target, control_of(case, network, settings), inversion.trajectory[-1])
            request = Request(target, checkpoint=seen.checkpoint, resume={"step": method.sampling_steps})
            with seen.looking(network.model):
                method.sample([branch], inversion, recorder(method, request))
            yield from edit_points(case, f"{part}.{mode}", seen, inversion)
            yield from mask_points(case, f"{part}.{mode}", seen, branch.control, inversion)


def inversion_of(case: Case, network: Network, part: str, method: FateZero) -> Inversion:
    """At its beginning; the maps of all layers and steps will be kept."""
    frames, side = (case.facts["parts"][part][name] for name in ("frames", "latent_side"))
    every_step = {"cross_replace_steps": "1", "self_replace_steps": "1"}
    control = method.control(prompt(case, "source"), prompt(case, "source"), every_step)
    return method.inversion([case.normal(100, (1, 4, frames, side, side))], network.prompt("source"), [control])


def recorder(method: FateZero, request: Request) -> Recorder:
    """Of one edit."""
    return Recorder([request], "", method.num_steps, every=1, seconds=1e9, advance=ignore_progress, advice="")


def every(ours: Tensor, recorded: np.ndarray) -> Tensor:
    """Every so many-th row and column, as recorded."""
    stride = ours.shape[-1] // recorded.shape[-1]
    return ours[..., ::stride, ::stride]


def lists(layers: Layers) -> dict[str, list[str]]:
    """The layers as the authors' lists have them: down_cross, mid_cross, up_cross, down_self, ..."""
    found = defaultdict(list)
    for kind, those in (("cross", layers.cross_attention), ("self", layers.self_attention)):
        for name in those:
            found[f"{name.partition('_')[0]}_{kind}"].append(name)
    return found


def inversion_points(case: Case, part: str, inversion: Inversion) -> Iterator[Point]:
    """Latents and stored maps."""
    trajectory, maps, of_lists = torch.cat(inversion.trajectory), inversion.maps, lists(inversion.layers)
    for name, what in names(case, rf"{part}\.inversion(\w*)"):
        ours = trajectory[-1] if what == "_final" else trajectory
        yield case.relative(name, every(ours, case[name]), INVERSION)
    shapes = {kind: [list(maps.at(0)(name).shape) for name in those] for kind, those in of_lists.items()}
    yield differences(f"{part}.store_shapes", shapes, case.facts.get(f"{part}.store_shapes", shapes))
    for step, sums in case.facts.get(f"{part}.store_sum_of_squares", {}).items():
        for kind, theirs in sums.items():
            ours = np.array([float(maps.at(int(step))(name).square().sum()) for name in of_lists[kind]])
            yield Point(f"{part}.store_sum_of_squares.{step}.{kind}", float(np.abs(ours / theirs - 1).max()), STORED)
    for name, step, kind in names(case, rf"{part}\.store\.(\d+)\.(\w+)"):
        ours = torch.zeros(case[name].shape)
        for i, of in enumerate(of_lists[kind]):
            found = sliced(maps.at(int(step))(of))[:, : ours.shape[-1]]
            ours[i, :, : found.shape[-1]] = found
        yield case.relative(name, ours, STORED)


def edit_points(case: Case, mode: str, seen: Seen, inversion: Inversion) -> Iterator[Point]:
    """Controlled maps, predictions and latents."""
    latents = torch.stack(seen.latents)
    ours = {"eps0": seen.predictions[0], "latents": latents, "final": latents[-1]}
    if seen.before_blend:
        ours["before_blend"] = torch.stack(seen.before_blend)
    for name, kind, index, step in names(case, rf"{mode}\.ctrl\.([a-z_]+)(\d+)\.step(\d+)"):
        yield case.relative(name, seen.maps[lists(inversion.layers)[kind][int(index)], int(step)], EDITED)
    for what, value in ours.items():
        for name in (f"{mode}.{what}", f"{mode}.{what}_sub"):
            if name in case:
                yield case.relative(name, every(value, case[name]), EDITED)


def mask_points(case: Case, mode: str, seen: Seen, control: Control, inversion: Inversion) -> Iterator[Point]:
    """Masks of attention and of latents."""
    if f"{mode}.attention_masks" not in case:
        return
    N, layers = len(seen.latents), inversion.layers
    steps = [ControlledStep(control, i, layers, inversion.maps.at(N - 1 - i)) for i in range(N)]
    blending = [steps[i] for i in control.self_steps]
    for name, factor in ((f"{mode}.attention_masks", 4), (f"{mode}.attention_masks_low", 8)):
        grid = (layers.height // factor, layers.width // factor)
        yield case.exact(name, torch.stack([step.source_mask(grid) for step in blending]))
    ours = torch.stack([pooled(step.source_words) for step in blending])
    yield case.relative(f"{mode}.attention_pooled", ours, STORED)
    if f"{mode}.latent_masks_sub" in case:
        yield from latent_mask_points(case, mode, seen, control, steps)


def latent_mask_points(
    case: Case, mode: str, seen: Seen, control: Control, steps: list[ControlledStep]
) -> Iterator[Point]:
    """Of every step; where latents are not blended, a few cells lie as near to the threshold as rounding."""
    ours = torch.stack([pooled(words) for words in seen.words])
    yield case.relative(f"{mode}.latent_pooled_target", ours, EDITED)
    grid = (steps[0].layers.height, steps[0].layers.width)
    masks = {
        f"{mode}.latent_masks_sub": [step.latent_mask(words) for step, words in zip(steps, seen.words)],
        f"{mode}.latent_masks_source_sub": [step.source_mask(grid) for step in steps],
    }
    blends = np.array([i + 1 in control.blended_after for i in range(len(steps))])
    for name, of_steps in masks.items():
        ours, theirs = case.pair(name, every(torch.stack(of_steps), case[name]))
        flipped = (ours != theirs).sum((1, 2, 3))
        yield Point(f"{name}, where latents are blended", float(flipped[blends].sum()), 0)
        yield Point(f"{name}, elsewhere", float(flipped[~blends].sum()), NEAR_THRESHOLD)
