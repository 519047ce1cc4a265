"""FateZero: prompt alignment, masks, layers, inversion, and edits with every kind of control."""

import ast
import contextlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from assd.diffusion.attention import processors_on
from assd.methods.fatezero.alignment import Tokens, refinement, replacement
from assd.methods.fatezero.control import Control, ControlledStep, blended_steps
from assd.methods.fatezero.editor import Branch, FateZero
from assd.methods.fatezero.layers import Layers, frame_table
from assd.methods.fatezero.maps import SourceMaps, Tap
from assd.methods.fatezero.masks import blend, mask, pooled, word_map
from assd.methods.fatezero.options import cross_windows
from assd.methods.fatezero.schedule import cross_shares, equalizer, read_window
from assd.methods.fatezero.temporal import read_weights, temporal_convolutions, video_network
from assd.methods.method import Request, ignore_progress
from assd.methods.recorder import Recorder
from assd.models.inflation import Weights, along_time, temporal_weights
from tests.parity.network import TableModel, tiny_unet, weight
from tests.parity.points import Case, Point

LENGTH = 77  # tokens of a padded prompt
HELPER, LAYER, INVERSION, STORED, EDITED = 1e-6, 1e-5, 1e-5, 5e-5, 3e-4  # limits, README section 6
NEAR_THRESHOLD = 3  # mask cells that may flip in steps whose latents are not blended
ABSENT = [-1, "first"]  # the published choice of key frames where nobody chooses


def points(case: Case) -> Iterator[Point]:
    """All of them, the earliest computed first."""
    network = Network(case)
    yield from probes(case, network)
    yield from prompt_helpers(case)
    yield from tables(case, network)
    yield from given_maps(case)
    yield from used_in_modes(case, network)
    yield from single_layers(case, network)
    yield from forward_passes(case, network)
    for part in case.facts["parts"]:
        yield from edits(case, network, part)


def text(case: Case, name: str) -> str:
    """What case.json says of an array."""
    return next(point["what"] for point in case.facts["points"] if point["name"] == name)


def names(case: Case, pattern: str) -> list[tuple[str, ...]]:
    """The recorded arrays whose names match, each with the pattern's groups."""
    found = [re.fullmatch(pattern, name) for name in case.arrays.files]
    return [(match.string, *match.groups()) for match in found if match]


def differences(name: str, ours: Any, theirs: Any) -> Point:
    """Of a table in case.json, which has to be equal."""
    return Point(name, float(ours != theirs), 0)


class Network:
    """The tiny U-Net, its embeddings, and what it has along time."""

    def __init__(self, case: Case):
        base = dict(case.facts["unet_base"])
        heads = int(str(base.pop("attention_head_dim")).split()[0])
        self.case = case
        self.unet = tiny_unet(case.seed, attention_head_dim=heads, **base)
        labels = {int(k): label.split()[0] for k, label in case.facts["text_embeddings"].items() if k.isdigit()}
        shape = (1, LENGTH, base["cross_attention_dim"])
        prompts = {
            "" if label == "uncond" else self.prompt(label): case.normal(k, shape) for k, label in labels.items()
        }
        self.model = TableModel(self.unet, prompts)
        self.folder = tempfile.TemporaryDirectory()

    def prompt(self, name: str) -> str:
        """source, targetA, targetB."""
        return self.case.facts["prompts"][name]

    @property
    def text(self) -> Tensor:
        """The source prompt's embedding."""
        return self.model.embed((self.prompt("source"),))

    @property
    def rank(self) -> int:
        """Of the low-rank convolutions."""
        shapes = dict(self.case.facts["temporal_parameter_names"]["lora"])
        return shapes["conv_in.conv_temporal.down.weight"][0]

    def formula(self, rank: int | None) -> dict[str, Tensor]:
        """The parameters along time, by the formula."""
        attention = temporal_weights(self.unet, (), random_bias=False, suffix="temporal")
        shapes = temporal_convolutions(self.unet, rank) | {name: tuple(p.shape) for name, p in attention.items()}
        return {name: weight(name, shape, self.case.seed) for name, shape in shapes.items()}

    def weights_file(self, kind: str, rank: int | None = None) -> str | None:
        """Of the parameters along time: `lora`, `conv1d`, or None for `identity`."""
        if kind == "identity":
            return None
        path = Path(self.folder.name) / f"{kind}-{rank}.safetensors"
        if not path.exists():
            save_file(self.formula(None if kind == "conv1d" else rank or self.rank), path)
        return str(path)

    def weights(self, kind: str) -> Weights:
        """The same as the editor reads them."""
        path = self.weights_file(kind)
        return {} if path is None else read_weights(Path(path), self.unet)

    def layers(self, kv_frames: list, least: int | None, frames: int, side: int) -> Layers:
        """The attention layers; maps of up to 32 x 32 queries."""
        return Layers(self.unet, self.model.layers, kv_frames, least, 32, None, frames, side, side)


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


def tokens_of(ids: list, words: list) -> Tokens:
    """A prompt from case.json."""
    return Tokens(tuple(ids), tuple((word, tuple(positions)) for word, positions in words), LENGTH)


def prompt(case: Case, name: str) -> Tokens:
    """source, targetA, targetB."""
    return tokens_of(**case.facts["prompts"]["tokens"][name])


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
        asked = {"cross_replace_steps": windows(given["spec"])}
        default, of_words = cross_windows(asked, target_with(case, given["spec"]))
        yield case.exact(f"p1.alpha_time.{key}", cross_shares(default, of_words, LENGTH, given["N"], True))


def target_with(case: Case, spec: Any) -> Tokens:
    """The target prompt that has the words of a schedule."""
    words = [word for word in spec if word != "default_"] if isinstance(spec, dict) else []
    targets = [prompt(case, name) for name in ("targetA", "targetB")]
    return next(target for target in targets if all(target.positions(word) for word in words))


def windows(spec: Any) -> str:
    """A schedule of case.json as the option that says the same."""
    if isinstance(spec, dict):
        return " ".join(windows(w) if word == "default_" else f"{word}={windows(w)}" for word, w in spec.items())
    return ":".join(map(str, spec)) if isinstance(spec, list) else str(spec)


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
        steps = read_window(windows(given["self_replace_steps"]), "self_replace_steps").steps(given["N"])
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


def modes(case: Case) -> dict[str, dict]:
    """The settings of each mode under its last name: `Ie plain` is plain of part Ie."""
    return {
        name.split()[-1]: settings
        for joined, given in case.facts["modes"].items()
        for name, settings in zip(joined.split(" / "), each_target(given))
    }


def each_target(given: dict) -> list[dict]:
    """One entry a target, where two are written as one."""
    return [given | {"target": target} for target in given["target"].split(" / ")]


def editor(network: Network, settings: dict) -> FateZero:
    """The method with the settings of a mode, and all that the published code does."""
    part, control = network.case.facts["parts"][settings["part"]], settings["control"] or {}
    config = part["model_config"]
    kind = part["temporal"] if part["temporal"] == "identity" else "lora" if "lora" in config else "conv1d"
    return FateZero(
        model=network.model,
        num_frames=part["frames"],
        height=8 * part["latent_side"],
        width=8 * part["latent_side"],
        seed=0,
        guidance_scale=settings["guidance"],
        negative_prompt="",
        sampling_steps=part["steps"],
        kv_frames=config.get("SparseCausalAttention_index", ABSENT),
        least_channels=config.get("least_sc_channel"),
        max_side=32,
        mask_level=None,
        cross_replace_steps=windows(control.get("cross_replace_steps", 0.0)),
        self_replace_steps=windows(control.get("self_replace_steps", 0.0)),
        equalizer_values=1.0,
        blend_self_attention="blend_words" in control and control.get("blend_self_attention", False),
        blend_latents="blend_words" in control and control.get("blend_latents", False),
        blend_threshold=control.get("blend_th", [0.3])[0],
        store="cpu",
        store_limit_gib=64,
        checkpoint_every=1,
        checkpoint_seconds=1e9,
        tuned_weights=network.weights_file(kind, config.get("lora")),
        cross_window_one_step_longer=True,
        padding_copies_words=True,
        unshifted_tail=True,
        blend_one_step_noisier=True,
    )


def options(settings: dict) -> dict[str, str]:
    """The words of a mode, as a dataset says them."""
    control = settings["control"] or {}
    said = {"mode": "replace" if control.get("is_replace_controller", True) else "refine"}
    if "eq_params" in control:
        said["equalizer_words"] = " ".join(control["eq_params"]["words"])
        said["equalizer_values"] = " ".join(map(str, control["eq_params"]["values"]))
    if "blend_words" in control:
        said["blend_words"] = " | ".join(" ".join(words) for words in control["blend_words"])
    return said


def control_of(case: Case, network: Network, settings: dict) -> Control:
    """What a mode does."""
    source, target = prompt(case, "source"), prompt(case, settings["target"])
    return editor(network, settings).control(source, target, options(settings))


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
        ours = read[what](control_of(case, network, modes(case)[mode]))
        yield case.absolute(name, ours, HELPER if what == "replace_mapper" else 0)


def single_layers(case: Case, network: Network) -> Iterator[Point]:
    """p2: attention, blocks, convolutions and a ResNet block alone."""
    unet, path = network.unet, "down_blocks.1.attentions.0.transformer_blocks.0"
    frames = case.facts["parts"]["I"]["frames"]
    block, shape = unet.get_submodule(path), case["p2.block.identity"].shape
    states, prompts = case.normal(300, shape), network.text.repeat(frames, 1, 1)

    def attending(kv_frames: list) -> contextlib.AbstractContextManager:
        return processors_on(unet, network.layers(kv_frames, None, frames, 16).processors(Tap()))

    for name, _ in names(case, r"p2\.attn1\.(\w+)"):
        with attending(ast.literal_eval(re.search(r"index (\[.*\])", text(case, name))[1])):
            yield case.relative(name, block.attn1(states), LAYER)
    for name, kind in names(case, r"p2\.block\.(\w+)"):
        weights = {} if kind == "identity" else network.weights("lora")
        with attending(["mid"]), video_network(unet, frames, weights):
            yield case.relative(name, block(states, encoder_hidden_states=prompts), LAYER)
    with video_network(unet, frames, network.weights("lora")):
        ours = along_time(block.norm_temporal, block.attn_temporal, frames, block, (), states)
        yield case.relative("p2.temporal_attention", ours, LAYER)
    for name, kind in names(case, r"p2\.conv_in\.(\w+)"):
        yield one_layer(case, network, name, kind, unet.conv_in, 301)
    for name, kind in names(case, r"p2\.conv_out\.(\w+)"):
        yield one_layer(case, network, name, kind, unet.conv_out, 304)
    resnet = unet.down_blocks[0].resnets[0]
    time = case.normal(303, (1, resnet.time_emb_proj.in_features)).repeat(frames, 1)
    for name, kind in names(case, r"p2\.resnet\.(\w+)"):
        yield one_layer(case, network, name, kind, resnet, 302, time)


def one_layer(case: Case, network: Network, name: str, kind: str, layer: Any, key: int, *more: Tensor) -> Point:
    """A layer that works on feature maps, within the network on a video; its first recorded channels."""
    _, channels, frames, *size = case[name].shape
    x = case.normal(key, (1, layer.in_channels, frames, *size))
    with video_network(network.unet, frames, network.weights(kind)):
        y = layer(rearrange(x, "b c f h w -> (b f) c h w"), *more)
    return case.relative(name, rearrange(y, "(b f) c h w -> b c f h w", f=frames)[:, :channels], LAYER)


def forward_passes(case: Case, network: Network) -> Iterator[Point]:
    """p2.unet: the whole network once."""
    for name, variant in names(case, r"p2\.unet\.(\w+)"):
        said = text(case, "p2.unet.f1")
        t, recorded = int(re.search(r"t=(\d+)", said)[1]), case[name]
        full = case.normal(101, (1, 4, case.facts["parts"]["I"]["frames"], *recorded.shape[3:]))
        z = full[:, :, : recorded.shape[2]]
        if variant == "image_mode":
            yield case.relative(name, network.model.predict(z, t, network.text), LAYER)
            continue
        kind, kv_frames, least = variant_of("identity_mid_all" if variant == "f1" else variant)
        layers = network.layers(kv_frames, least, z.shape[2], z.shape[3])
        with (
            video_network(network.unet, z.shape[2], network.weights(kind)),
            processors_on(network.unet, layers.processors(Tap())),
        ):
            yield case.relative(name, network.model.predict(z, t, network.text), LAYER)


def variant_of(name: str) -> tuple[str, list, int | None]:
    """`lora_mid_least64`: what stands along time, the key frames, and the channels that they need."""
    kind, *words = name.split("_")
    least = next((int(word.removeprefix("least")) for word in words if word.startswith("least")), None)
    if "default" in words or "absent" in words:
        return kind, ABSENT, least
    numbers = {"own": 0, "prev": -1, "previous": -1, "next": 1}
    return (
        kind,
        [numbers.get(word, word) for word in words if word in numbers or word in ("first", "mid", "last")],
        least,
    )


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
    settings = {mode: given for mode, given in modes(case).items() if given["part"] == part}
    given = case.facts["parts"][part]
    shape = (given["frames"], given["latent_side"], given["latent_side"])
    trajectory, tap = [case.normal(100, (1, 4, *shape))], Tap()
    source, first = network.prompt("source"), editor(network, next(iter(settings.values())))
    layers = first.layers(trajectory[0][0])
    everything = first.control(
        prompt(case, "source"), prompt(case, "source"), {"cross_replace_steps": "1", "self_replace_steps": "1"}
    )
    maps = first.source_maps(source, [everything], layers, tap, trajectory)
    with video_network(network.unet, layers.frames, first.weights), processors_on(network.unet, layers.processors(tap)):
        first.invert(source, trajectory, maps, recorder(first, Request(source)))
        yield from inversion_points(case, part, torch.cat(trajectory), layers, maps)
        for mode, of_mode in settings.items():
            method, seen = editor(network, of_mode), Seen()
            target = network.prompt(of_mode["target"])
            branch = Branch(target, control_of(case, network, of_mode), trajectory[-1])
            request = Request(target, checkpoint=seen.checkpoint, resume={"step": given["steps"]})
            with seen.looking(network.model):
                method.sample([branch], trajectory, layers, maps, recorder(method, request))
            yield from edit_points(case, f"{part}.{mode}", seen, layers)
            yield from mask_points(case, f"{part}.{mode}", seen, branch.control, layers, maps)


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


def inversion_points(case: Case, part: str, trajectory: Tensor, layers: Layers, maps: SourceMaps) -> Iterator[Point]:
    """Latents and stored maps."""
    for name, what in names(case, rf"{part}\.inversion(\w*)"):
        ours = trajectory[-1] if what == "_final" else trajectory
        yield case.relative(name, every(ours, case[name]), INVERSION)
    shapes = {kind: [list(maps.at(0)(name).shape) for name in those] for kind, those in lists(layers).items()}
    yield differences(f"{part}.store_shapes", shapes, case.facts[f"{part}.store_shapes"])
    for step, sums in case.facts[f"{part}.store_sum_of_squares"].items():
        for kind, theirs in sums.items():
            ours = np.array([float(maps.at(int(step))(name).square().sum()) for name in lists(layers)[kind]])
            worst = float(np.abs(ours / theirs - 1).max())
            yield Point(f"{part}.store_sum_of_squares.{step}.{kind}", worst, STORED)
    for name, step, kind in names(case, rf"{part}\.store\.(\d+)\.(\w+)"):
        ours = torch.zeros(case[name].shape)
        for i, of in enumerate(lists(layers)[kind]):
            slice_ = sliced(maps.at(int(step))(of))[:, : ours.shape[-1]]
            ours[i, :, : slice_.shape[-1]] = slice_
        yield case.relative(name, ours, STORED)


def edit_points(case: Case, mode: str, seen: Seen, layers: Layers) -> Iterator[Point]:
    """Controlled maps, predictions and latents."""
    latents = torch.stack(seen.latents)
    ours = {
        "eps0": seen.predictions[0],
        "latents": latents,
        "before_blend": torch.stack(seen.before_blend),
        "final": latents[-1],
    }
    for name, kind, index, step in names(case, rf"{mode}\.ctrl\.([a-z_]+)(\d+)\.step(\d+)"):
        yield case.relative(name, seen.maps[lists(layers)[kind][int(index)], int(step)], EDITED)
    for what, value in ours.items():
        for name in (f"{mode}.{what}", f"{mode}.{what}_sub"):
            if name in case:
                yield case.relative(name, every(value, case[name]), EDITED)


def mask_points(
    case: Case, mode: str, seen: Seen, control: Control, layers: Layers, maps: SourceMaps
) -> Iterator[Point]:
    """Masks of attention and of latents."""
    if f"{mode}.attention_masks" not in case:
        return
    N, (h, w) = len(seen.latents), (layers.height, layers.width)
    steps = [ControlledStep(control, i, layers, maps.at(N - 1 - i)) for i in range(N)]
    blending = [steps[i] for i in control.self_steps]
    for name, factor in ((f"{mode}.attention_masks", 4), (f"{mode}.attention_masks_low", 8)):
        yield case.exact(name, torch.stack([step.source_mask((h // factor, w // factor)) for step in blending]))
    ours = torch.stack([pooled(step.source_words) for step in blending])
    yield case.relative(f"{mode}.attention_pooled", ours, STORED)
    if f"{mode}.latent_masks_sub" not in case:
        return
    yield case.relative(
        f"{mode}.latent_pooled_target", pooled(torch.stack(seen.words).flatten(0, 1)).unflatten(0, (N, -1)), EDITED
    )
    masks = {
        f"{mode}.latent_masks_sub": [step.latent_mask(words) for step, words in zip(steps, seen.words)],
        f"{mode}.latent_masks_source_sub": [step.source_mask((h, w)) for step in steps],
    }
    applied = np.array([i + 1 in control.blended_after for i in range(N)])
    for name, of_steps in masks.items():
        flipped = (every(torch.stack(of_steps), case[name]).numpy() != case[name]).sum((1, 2, 3))
        case.compared.add(name)
        yield Point(f"{name}, where latents are blended", float(flipped[applied].sum()), 0)
        yield Point(f"{name}, elsewhere", float(flipped[~applied].sum()), NEAR_THRESHOLD)
