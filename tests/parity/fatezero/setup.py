"""The tiny network along time, the prompts, and the method with the settings of each recorded mode."""

import dataclasses
import re
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from assd.methods.fatezero.alignment import Positions, Tokens
from assd.methods.fatezero.control import Control
from assd.methods.fatezero.editor import FateZero
from assd.methods.fatezero.layers import Layers
from assd.methods.fatezero.temporal import read_weights, temporal_convolutions
from assd.models.inflation import Weights, temporal_weights
from tests.parity.network import TableModel, tiny_unet, weight
from tests.parity.points import Case, Point

LENGTH = 77  # tokens of a padded prompt
HELPER, LAYER, INVERSION, STORED, EDITED = 1e-6, 1e-5, 1e-5, 5e-5, 3e-4  # limits, README section 6
ABSENT = [-1, "first"]  # the published choice of key frames where nobody chooses


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
        """Of the low-rank convolutions; where no part has any, that of the recorded tables."""
        configs = (part["model_config"] for part in self.case.facts["parts"].values())
        shapes = dict(self.case.facts["temporal_parameter_names"]["lora"])
        return next((c["lora"] for c in configs if "lora" in c), shapes["conv_in.conv_temporal.down.weight"][0])

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


def tokens_of(ids: list, words: list) -> Tokens:
    """A prompt from case.json."""
    return Tokens(tuple(ids), tuple((word, tuple(positions)) for word, positions in words), LENGTH)


def prompt(case: Case, name: str) -> Tokens:
    """source, targetA, targetB."""
    return tokens_of(**case.facts["prompts"]["tokens"][name])


def windows(spec: Any, target: Tokens) -> str:
    """A schedule of case.json as the option that says the same, without words that the target prompt lacks."""
    if isinstance(spec, dict):
        known = [(word, windows(w, target)) for word, w in spec.items() if word == "default_" or target.positions(word)]
        return " ".join(text if word == "default_" else f"{word}={text}" for word, text in known)
    return ":".join(map(str, spec)) if isinstance(spec, list) else str(spec)


def modes(case: Case) -> list[tuple[str, dict]]:
    """The settings of each mode, under its last name: `Ie plain` is plain of part Ie."""
    return [
        (name.split()[-1], settings)
        for joined, given in case.facts["modes"].items()
        for name, settings in zip(joined.split(" / "), each_target(given))
    ]


def each_target(given: dict) -> list[dict]:
    """One entry a target, where two are written as one."""
    return [given | {"target": target} for target in given["target"].split(" / ")]


def editor(network: Network, settings: dict) -> FateZero:
    """The method with the settings of a mode, and all that the published code does."""
    part, control = network.case.facts["parts"][settings["part"]], settings["control"] or {}
    target = prompt(network.case, settings["target"])
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
        cross_replace_steps=windows(control.get("cross_replace_steps", 0.0), target),
        self_replace_steps=windows(control.get("self_replace_steps", 0.0), target),
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


def options(settings: dict, target: Tokens) -> dict[str, str]:
    """The words of a mode, as a dataset says them."""
    control = settings["control"] or {}
    said = {"mode": "replace" if control.get("is_replace_controller", True) else "refine"}
    if "eq_params" in control:
        words, values = control["eq_params"]["words"], control["eq_params"]["values"]
        known = {word: str(value) for word, value in zip(words, values) if target.positions(word)}
        if known:  # without words, ours would be the new ones, by the editor's factor of 1
            said["equalizer_words"], said["equalizer_values"] = " ".join(known), " ".join(known.values())
    return said


def blended(settings: dict, source: Tokens, target: Tokens) -> tuple[Positions, Positions]:
    """The tokens of a mode's `blend_words`, of which the published code passes over those that it doesn't find."""
    sides = [*(settings["control"] or {}).get("blend_words", []), [], []]
    gone, new = (
        tuple(position for word in words for position in tokens.positions(word))
        for tokens, words in zip((source, target), sides)
    )
    return gone, new


def control_of(case: Case, network: Network, settings: dict) -> Control:
    """What a mode does."""
    source, target = prompt(case, "source"), prompt(case, settings["target"])
    gone, new = blended(settings, source, target)
    control = editor(network, settings).control(source, target, options(settings, target))
    return dataclasses.replace(control, gone=gone, new=new)
