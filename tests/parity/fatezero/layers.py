"""Single layers and one pass of the whole network."""

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from einops import rearrange
from torch import Tensor

from assd.diffusion.attention import processors_on
from assd.methods.fatezero.maps import Tap
from assd.methods.fatezero.temporal import video_network
from assd.models.inflation import along_time
from tests.parity.fatezero.setup import ABSENT, LAYER, Network, names, text
from tests.parity.points import Case, Point


def single_layers(case: Case, network: Network) -> Iterator[Point]:
    """p2: attention, blocks, convolutions and a ResNet block alone."""
    unet, path = network.unet, "down_blocks.1.attentions.0.transformer_blocks.0"
    frames = case.facts["parts"]["I"]["frames"]
    block, shape = unet.get_submodule(path), case["p2.block.identity"].shape
    states, prompts = case.normal(300, shape), network.text.repeat(frames, 1, 1)

    def attending(kv_frames: list) -> contextlib.AbstractContextManager:
        return processors_on(unet, network.layers(kv_frames, None, frames, 16).processors(Tap()))

    for name, _ in names(case, r"p2\.attn1\.(\w+)"):
        with attending(said_frames(text(case, name).rpartition("index ")[2])):
            yield case.relative(name, block.attn1(states), LAYER)
    for name, kind in names(case, r"p2\.block\.(\w+)"):
        weights = {} if kind == "identity" else network.weights("lora")
        chosen = re.search(r"attn1 (\[.*?\]|\w+)", text(case, "p2.block.identity"))[1]
        with attending(said_frames(chosen)), video_network(unet, frames, weights):
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


def said_frames(said: str) -> list:
    """Key frames as case.json's texts have them: `[0, 'mid']`, or a word such as `mid` or `absent`."""
    return ast.literal_eval(said) if said.startswith("[") else frames_of(said.split("_"))


def frames_of(words: list[str]) -> list:
    """Key frames by the words of a variant's name."""
    if "default" in words or "absent" in words:
        return ABSENT
    known = {"own": 0, "prev": -1, "previous": -1, "next": 1, "first": "first", "mid": "mid", "last": "last"}
    return [known[word] for word in words if word in known]


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
        kind, kv_frames, least = variant_of(case, "identity_mid_all" if variant == "f1" else variant)
        layers = network.layers(kv_frames, least, z.shape[2], z.shape[3])
        processors = processors_on(network.unet, layers.processors(Tap()))
        with video_network(network.unet, z.shape[2], network.weights(kind)), processors:
            yield case.relative(name, network.model.predict(z, t, network.text), LAYER)


def variant_of(case: Case, name: str) -> tuple[str, list, int | None]:
    """`lora_mid_least64`: what stands along time, the key frames, and the channels that they need."""
    kind, _, choice = name.partition("_")
    if choice in case.facts["kv_index_per_layer"]:
        return kind, *by_table(case.facts["kv_index_per_layer"][choice].values())
    words = choice.split("_")
    least = next((int(word.removeprefix("least")) for word in words if word.startswith("least")), None)
    return kind, frames_of(words), least


def by_table(table: Iterable[tuple[int, Any]]) -> tuple[list, int | None]:
    """The same from a list of each layer's channels and key frames."""
    chosen = [(channels, ABSENT if isinstance(frames, str) else frames) for channels, frames in table]
    most = max((frames for _, frames in chosen), key=len)
    wide = min(channels for channels, frames in chosen if frames == most)
    return most, wide if any(frames != most for _, frames in chosen) else None
