"""Inputs, prompt alignment, schedules, tables, and masks from given maps."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assd.methods.fatezero.alignment import Tokens, refinement, replacement
from assd.methods.fatezero.control import blended_steps
from assd.methods.fatezero.layers import frame_table
from assd.methods.fatezero.masks import blend, mask, pooled, word_map
from assd.methods.fatezero.options import cross_windows
from assd.methods.fatezero.schedule import cross_shares, equalizer, read_window
from tests.parity.fatezero.setup import (
    ABSENT,
    HELPER,
    LENGTH,
    Network,
    control_of,
    differences,
    modes,
    names,
    prompt,
    text,
    tokens_of,
    windows,
)
from tests.parity.points import Case, Point


def probes(case: Case, network: Network) -> Iterator[Point]:
    """p0: weights and inputs."""
    own = dict(network.unet.named_parameters())
    lora, full = network.formula(network.rank), network.formula(None)
    for name, variant, parameter in names(case, r"p0\.(wc?)\.(.*)"):
        known = own | (full if variant == "wc" else lora)
        yield case.exact(name, known[parameter].flatten()[:8])
    part = case.facts["parts"]["I"]
    latents = case.normal(100, (1, 4, part["frames"], part["latent_side"], part["latent_side"]))
    yield case.exact("p0.latents100_head", latents.flatten()[:8])
    yield case.exact("p0.text1_head", network.text.flatten()[:8])


def prompt_helpers(case: Case) -> Iterator[Point]:
    """p1: alignment, equalisers and schedules."""
    for key, pair in case.facts["prompt_pairs"].items():
        source, target = (tokens_of(pair[f"{p}_ids"], pair[f"{p}_word_tokens"]) for p in ("source", "target"))
        refined = refinement(source, target, padding_copies_words=True)
        yield case.exact(f"p1.{key}.refine_mapper", refined.columns)
        yield case.exact(f"p1.{key}.refine_alpha", refined.aligned)
        if (name := f"p1.{key}.replace_mapper") in case:
            yield case.absolute(name, replacement(source, target, unshifted_tail=True).matrix, HELPER)
        if (name := f"p1.{key}.equalizer") in case:
            words, values = map(
                ast.literal_eval, re.search(r"words (\[.*\]) values (\[.*?\])", text(case, name)).groups()
            )
            of_words = {target.positions(word): value for word, value in zip(words, values)}
            yield case.exact(name, equalizer(of_words, LENGTH))
    for key, given in case.facts["alpha_time"].items():
        target = target_with(case, given["spec"])
        default, of_words = cross_windows({"cross_replace_steps": windows(given["spec"], target)}, target)
        yield case.exact(f"p1.alpha_time.{key}", cross_shares(default, of_words, LENGTH, given["N"], True))


def target_with(case: Case, spec: Any) -> Tokens:
    """The first target prompt that has most words of a schedule, which doesn't say of which prompt it is."""
    words = [word for word in spec if word != "default_"] if isinstance(spec, dict) else []
    pairs = [tokens_of(pair["target_ids"], pair["target_word_tokens"]) for pair in case.facts["prompt_pairs"].values()]
    targets = [*pairs, prompt(case, "targetA"), prompt(case, "targetB")]
    return max(targets, key=lambda target: sum(bool(target.positions(word)) for word in words))


def tables(case: Case, network: Network) -> Iterator[Point]:
    """Tables of case.json, and alphas_cumprod."""
    lora = [[name, list(value.shape)] for name, value in network.formula(network.rank).items()]
    full = [[name, list(value.shape)] for name, value in network.formula(None).items()]
    for kind, ours in (("lora", lora), ("conv1d", full)):
        theirs = case.facts["temporal_parameter_names"][kind]
        yield differences(f"temporal_parameter_names.{kind}", [entry for entry in theirs if entry not in ours], [])
    for frames, by_choice in case.facts["kv_frame_tables"].items():
        for choice, theirs in by_choice.items():
            chosen = ABSENT if choice == "default" else ast.literal_eval(choice)
            yield differences(f"kv_frame_tables.{frames}.{choice}", frame_table(chosen, int(frames)), theirs)
    for given in case.facts["self_window_examples"]:
        steps = read_window(windows(given["self_replace_steps"], prompt(case, "targetA")), "self_replace_steps").steps(
            given["N"]
        )
        yield differences(f"self_window_examples.{given}", [steps.start, steps.stop], given["window"])
    for N, given in case.facts["scheduler"].items():
        yield differences(f"scheduler.{N}", network.model.schedule.timesteps(int(N)), given["timesteps"])
    at = [int(t) for t in text(case, "p1.alphas_cumprod").partition("t=")[2].split(",")]
    yield case.absolute("p1.alphas_cumprod", np.square([network.model.schedule.alphas[t] for t in at]), HELPER)


def given_maps(case: Case) -> Iterator[Point]:
    """p1.blend: masks from random maps."""
    given = case.facts["blend_given_maps"]
    frames, grid, threshold = given["frames"], case["p1.blend.source_pooled"].shape[1:], given["th"][0]
    source, target = (
        [softmax(case.seed, first + i, (frames, 8, grid[0] * grid[1], LENGTH)) for i in range(5)]
        for first in (200, 210)
    )
    target = target[:2] + [3 * maps for maps in target[2:]]
    gone = word_map(source, tuple(given["source_token_positions"]), grid)
    new = word_map(target, tuple(given["target_token_positions"]), grid)
    yield case.absolute("p1.blend.source_pooled", pooled(gone), HELPER)
    for name, side in names(case, r"p1\.blend\.source_mask_(\d+)"):
        yield case.exact(name, mask(gone, (int(side), int(side)), threshold))
    ((both, side),) = names(case, r"p1\.blend\.both_mask_(\d+)")
    union = mask(gone, (int(side), int(side)), threshold) | mask(new, (int(side), int(side)), threshold)
    yield case.exact(both, union)
    z_inv, z = case.normal(220, (2, 4, frames, int(side), int(side)))
    yield case.absolute("p1.blend.latent_out", blend(z, z_inv, union)[..., ::2, ::2], HELPER)
    calls = given["latent_blend_applied_at_call_1_to_10"]
    yield differences("latent_blend_applied", [c in blended_steps(len(calls)) for c in range(1, len(calls) + 1)], calls)


def softmax(seed: int, key: int, shape: tuple[int, ...]) -> Tensor:
    """A given map."""
    x = 2 * np.random.default_rng([seed, key]).standard_normal(shape)
    return torch.from_numpy(x).softmax(-1).float()


def used_in_modes(case: Case, network: Network) -> Iterator[Point]:
    """p1.mode: alignment, equaliser and schedule as a mode uses them."""
    read = {
        "refine_mapper": lambda control: control.alignment.columns,
        "refine_alpha": lambda control: control.alignment.aligned,
        "replace_mapper": lambda control: control.alignment.matrix,
        "equalizer": lambda control: control.equalizer,
        "alpha_time": lambda control: control.cross_shares,
    }
    for name, mode, what in names(case, r"p1\.mode_(\w+)\.(\w+)"):
        ours = read[what](control_of(case, network, dict(modes(case))[mode]))
        yield case.absolute(name, ours, HELPER if what == "replace_mapper" else 0)
