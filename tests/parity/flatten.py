"""FLATTEN's recorded points: trajectories, layers, the U-Net, the inversion with its store, and complete edits.

Each recorded name says what it is, so the points are those that a case lists, computed by the classes that edit.
"""

import contextlib
import functools
import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from assd.diffusion.attention import layer
from assd.diffusion.features import outputs_changed, queries_and_keys
from assd.diffusion.trajectories import Trajectories, trajectories
from assd.methods.flatten import Flatten
from assd.methods.flatten.inverted import Inverted
from assd.methods.method import Checkpoint, Request, ignore_progress
from assd.methods.recorder import Recorder
from tests.parity.network import TableModel, tiny_unet
from tests.parity.points import Case, Point, in_turn

FRAME = 512  # pixels on a side of the frames that flow is given on
TABLES = 4  # resolutions of the authors' tables, each half of the one before, with one stream of draws
TEXT, NEGATIVE, TARGET = "", "neg", "pos"
PUBLISHED = dict(fill_short_tracks=True, shifted_levels=True, match_by_position=True)


def points(case: Case) -> Iterator[Point]:
    """In the order of case.json."""
    authors = Authors(case)
    yield from in_turn(*(of_fact(authors, fact) for fact in case.facts["points"]))


def of_fact(authors: "Authors", fact: dict[str, Any]) -> Iterator[Point]:
    """What one entry of case.json records."""
    for pattern, ours in POINTS.items():
        if found := re.fullmatch(pattern, fact["name"]):
            yield compared(authors.case, fact, ours(authors, *found.groups()))
            break
    yield from digests_agree(authors, fact)


def compared(case: Case, fact: dict[str, Any], ours: np.ndarray | Tensor | list) -> Point:
    """Numbers within the tolerance that case.json suggests; indices must be equal."""
    name, recorded = fact["name"], case[fact["name"]]
    limit = fact.get("max_abs_tolerance_suggested", fact.get("tolerance"))
    ours = np.asarray(ours)
    if limit == "exact":
        return case.exact(name, ours)
    return case.absolute(name, thinned(ours, recorded.shape), float(limit))


def digests_agree(authors: "Authors", fact: dict[str, Any]) -> Iterator[Point]:
    """Of a table that is too large to be recorded, of which a point states digests: 1 is the error of a wrong one."""
    if "sha256_seq_int64" in fact:
        _, name, side, _ = fact["name"].split(".")
        for key, digest in authors.digests(name, side).items():
            yield Point(f"traj.{name}.{side}.{key}", float(digest != fact[key]), 0)


def thinned(ours: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Every so many elements of an axis of which the recorded array has fewer."""
    return ours[tuple(slice(None, None, max(1, have // wanted)) for have, wanted in zip(ours.shape, shape))]


class Draws(random.Random):
    """Python's generator, which logs (n, p) at each `randint(0, n - 1)`."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.log: list[tuple[int, int]] = []

    def randint(self, a: int, b: int) -> int:
        """A number in [a, b]."""
        drawn = super().randint(a, b)
        self.log.append((b - a + 1, drawn))
        return drawn


class ListenedModel(TableModel):
    """A model that logs its passes over whole videos, (t, output)."""

    def predict(self, z_t: Tensor, t: int, embeddings: Tensor) -> Tensor:
        """As the model does."""
        output = super().predict(z_t, t, embeddings)
        if z_t.shape[2] > 1:
            self.passes.append((t, output))
        return output


@dataclass(frozen=True)
class Run:
    """What an edit left: its steps, its passes (t, output), and the latent after each step."""

    inverting: int
    passes: list[tuple[int, Tensor]]
    latents: list[Tensor]

    @property
    def times(self) -> list[int]:
        """Of the passes."""
        return [t for t, _ in self.passes]


class Authors:
    """The case's network, inputs and settings, and the method with them."""

    def __init__(self, case: Case):
        self.case, self.settings, self.f, self.R = case, case.settings, case.settings["f"], case.settings["R"]
        prompts = {prompt: case.normal(key, (77, 32))[None] for key, prompt in enumerate((TEXT, TARGET, NEGATIVE))}
        self.model = ListenedModel(tiny_unet(case.seed), prompts)
        self.model.passes = []
        for name in ("tables", "along", "edit", "inverted"):
            setattr(self, name, functools.cache(getattr(self, name)))

    def method(self, frames: int, grid: int, **changes: Any) -> Flatten:
        """As published, on latents of grid x grid."""
        arguments = dict(
            model=self.model,
            num_frames=frames,
            height=8 * grid,
            width=8 * grid,
            seed=0,
            guidance_scale=self.settings["gs"],
            negative_prompt=NEGATIVE,
            inversion_steps=self.settings["inv"],
            sampling_steps=self.settings["steps"],
            injection_steps=self.settings["inject"],
            inversion_prompt=TEXT,
            old_qk=False,
            flow="dis",
            attention_chunk=None,
            store="cpu",
            checkpoint_every=1,
            checkpoint_seconds=1000.0,
            **PUBLISHED,
        )
        return Flatten(**arguments | changes)

    # trajectories

    def flow(self, name: str) -> Tensor:
        """In pixels of a large frame, the same in all pixels of a cell."""
        cells = self.case.tensor(f"flow.{name}")
        return cells.repeat_interleave(FRAME // cells.shape[-2], 2).repeat_interleave(FRAME // cells.shape[-1], 3)

    def grid(self, name: str) -> int:
        """Cells on a side."""
        return self.case[f"flow.{name}"].shape[-1]

    def tables(self, name: str) -> tuple[dict[int, Trajectories], Draws]:
        """By resolution, finest first, and the draws that were made."""
        flow, finest, draws = self.flow(name), self.grid(name), Draws(self.settings["py"])
        sides = [finest // 2**i for i in range(TABLES)]
        return {r: trajectories(flow, r, r, draws, window=2 if r == finest else 1) for r in sides}, draws

    def along(self, name: str) -> Trajectories:
        """What attention uses at the finest resolution."""
        flow, grid = self.flow(name), self.grid(name)
        return self.method(len(flow) + 1, grid).along(flow, grid, grid, Draws(self.settings["py"]))

    def table(self, name: str, side: str, what: str) -> np.ndarray:
        """A recorded part of a table."""
        r = int(side)
        table = self.along(name) if what.startswith("used") else self.tables(name)[0][r]
        return table.here.numpy() if what.endswith("mask") else cells(table, r)

    def digests(self, name: str, side: str) -> dict[str, str]:
        """Of a table that is too large to be recorded."""
        r = int(side)
        table = self.tables(name)[0][r]
        parts = {"sha256_seq_int64": cells(table, r), "sha256_mask_bool": table.here.numpy()}
        return {key: hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for key, part in parts.items()}

    # layers and passes

    @contextlib.contextmanager
    def inflated(self, flow: str | None, old_qk: str = "0", grid: int | None = None) -> Iterator[int]:
        """The network on a video along recorded flow, or densely; gives the number of frames."""
        grid = grid or self.R
        frames = self.f if flow is None else len(self.flow(flow)) + 1
        method = self.method(frames, grid, old_qk=old_qk == "1")
        with method.inflated(frames, None if flow is None else self.along(flow)):
            yield frames

    def resnet(self, level: str, index: str) -> Tensor:
        """A ResNet block of the encoder."""
        block = self.model.unet.down_blocks[int(level)].resnets[int(index)]
        channels, f, side = block.in_channels, self.f, self.R >> int(level)
        x = self.case.normal(210, (2, channels, f, side, side))
        time = self.case.normal(211, (2, block.time_emb_proj.in_features))
        with self.inflated(None):
            return video(block(images(x), time.repeat_interleave(f, 0)), f)

    def attention(self, level: str, index: str, key: int, flow: str | None, inject: bool, old_qk: str) -> Tensor:
        """A self-attention layer of the encoder."""
        name = f"down_blocks.{level}.attentions.{index}.transformer_blocks.0.attn1"
        attn = layer(self.model.unet, name)
        shape = (2 * self.f, (self.R >> int(level)) ** 2, attn.to_q.in_features)
        given = dict(zip(queries_and_keys([name]), (self.case.normal(202, shape), self.case.normal(203, shape))))
        with (
            self.inflated(flow, old_qk),
            outputs_changed(self.model.unet, given if inject else (), lambda name, _: given[name]),
        ):
            return attn(self.case.normal(key, shape))

    def dense(self, level: str, index: str) -> Tensor:
        """Without flow."""
        return self.attention(level, index, 200, None, inject=False, old_qk="0")

    def guided(self, level: str, index: str, flow: str, inject: str | None, old_qk: str) -> Tensor:
        """With flow."""
        return self.attention(level, index, 201, flow, bool(inject), old_qk)

    def transformer(self, level: str, index: str) -> Tensor:
        """A whole transformer of the encoder."""
        module = self.model.unet.down_blocks[int(level)].attentions[int(index)]
        side = self.R >> int(level)
        x = self.case.normal(212, (2, module.in_channels, self.f, side, side))
        text = self.model.embed((NEGATIVE, TARGET)).repeat_interleave(self.f, 0)
        with self.inflated("wave"):
            return video(module(images(x), encoder_hidden_states=text).sample, self.f)

    def forward(self, grid: str, flow: str | None, old_qk: str = "0") -> Tensor:
        """A pass of the whole network."""
        side = int(grid)
        with self.inflated(flow, old_qk, side) as frames:
            x = self.case.normal(100, (1, 4, frames, side, side))
            return self.model.predict(torch.cat([x, x]), self.settings["t"], self.model.embed((NEGATIVE, TARGET)))

    # edits

    def source(self) -> Tensor:
        """The video's latent."""
        return self.case.normal(100, (1, 4, self.f, self.R, self.R))[0]

    def edit(self, flow: str | None, old_qk: str = "0", inject: int | None = None) -> Run:
        """A complete edit, every step of it."""
        changes = {} if inject is None else {"injection_steps": inject}
        method = self.method(self.f, self.R, old_qk=old_qk == "1", **changes)
        latents: list[Tensor] = []
        self.model.passes = []

        def keep(checkpoint: Checkpoint, curves: list[dict]) -> None:
            latents.append(checkpoint["Z"].clone())

        recorder = recording(method, Request(TARGET, checkpoint=keep))
        method.edited(self.source(), TEXT, None if flow is None else self.along(flow), recorder)
        passes, self.model.passes = self.model.passes, []
        return Run(len(method.steps.inversion), passes, latents)

    def inverted(self, flow: str, old_qk: str) -> Inverted:
        """What an inversion leaves that keeps the features of all sampling steps it comes by."""
        visited = self.method(self.f, self.R, injection_steps=0).steps.visited
        method = self.method(self.f, self.R, old_qk=old_qk == "1", injection_steps=len(visited))
        left = Inverted(self.model, TEXT, method.features(self.source()), {})
        with method.inflated(self.f, self.along(flow)):
            method.invert(self.source()[None], left, recording(method, Request(TARGET)))
        return left

    def stored(self, flow: str, old_qk: str, t: str, kind: str, number: str) -> Tensor:
        """A feature: a convolution's by its number among them, Q and K by the layer's number in the decoder."""
        store = self.inverted(flow, old_qk).features.store
        if kind == "f":
            names = self.method(self.f, self.R).injected_layers
            return video(store.get(int(t), names[int(number)]), self.f)
        level, index = divmod(int(number), self.model.unet.config.layers_per_block + 1)
        return store.get(int(t), f"up_blocks.{level}.attentions.{index}.transformer_blocks.0.attn1.to_{kind}")

    # timesteps

    def schedule(self, inversion: str, sampling: str, what: str) -> list[int]:
        """The lists of an inversion and a sampling of so many steps."""
        counts = dict(inversion_steps=int(inversion), sampling_steps=int(sampling), injection_steps=0)
        steps = self.method(self.f, self.R, **counts).steps
        (s, t), *_ = steps.inversion
        lists = {
            "inv_list": [2 * s - t, *(s for s, _ in steps.inversion)],  # the first one is dropped
            "samp_list": steps.timesteps,
            "stored_t_in_sampling_order": steps.visited,
        }
        return lists[what]

    def alphas(self) -> list[float]:
        """abar at the timesteps that the point's text lists."""
        (text,) = (p["what"] for p in self.case.facts["points"] if p["name"] == "sched.alphas_cumprod_f32")
        return [self.model.schedule.alphas[int(t)] ** 2 for t in text.split("t = ")[1].split(",")]


def cells(table: Trajectories, side: int) -> np.ndarray:
    """(frame, row, column) of each slot."""
    frames = len(table.cells) // side**2
    return np.stack(np.unravel_index(table.cells.numpy(), (frames, side, side)), axis=-1).astype(np.int64)


def images(x: Tensor) -> Tensor:
    """A batch of frames."""
    return rearrange(x, "b c f h w -> (b f) c h w")


def video(x: Tensor, frames: int) -> Tensor:
    """A batch of videos."""
    return rearrange(x, "(b f) c h w -> b c f h w", f=frames)


def recording(method: Flatten, request: Request) -> Recorder:
    """Of every step."""
    return Recorder([request], "case", method.num_steps, every=1, seconds=1000.0, advance=ignore_progress, advice="")


EDIT = r"edit\.(\w+)\.old_qk([01])\."
POINTS: dict[str, Callable[..., np.ndarray | Tensor | list]] = {
    r"sched\.(\d+)_(\d+)\.(\w+)": Authors.schedule,
    r"sched\.alphas_cumprod_f32": Authors.alphas,
    r"draws\.(\w+)": lambda a, name: np.reshape(a.tables(name)[1].log, (-1, 2)),
    r"traj\.(\w+)\.(\d+)\.(\w+)": Authors.table,
    r"resnet\.down(\d)_(\d)": Authors.resnet,
    r"dense\.down(\d)_(\d)": Authors.dense,
    r"flow\.down(\d)_(\d)\.dense_only": lambda a, level, index: a.attention(level, index, 201, None, False, "0"),
    r"flow\.down(\d)_(\d)\.(\w+?)(\.inject)?\.old_qk([01])": Authors.guided,
    r"tblock\.down(\d)_(\d)": Authors.transformer,
    r"unet(\d+)\.flow_off": lambda a, grid: a.forward(grid, None),
    r"unet(\d+)\.(\w+)\.old_qk([01])": Authors.forward,
    EDIT + "inv_t": lambda a, *key: a.edit(*key).times[: a.edit(*key).inverting],
    EDIT + "inv_latents": lambda a, *key: torch.stack(a.edit(*key).latents[: a.edit(*key).inverting]),
    EDIT + "eps_inv_first": lambda a, *key: a.edit(*key).passes[0][1],
    EDIT + r"store\.t(\d+)\.([fqk])(\d+)": Authors.stored,
    EDIT + "unet_calls_t": lambda a, *key: a.edit(*key).times,
    EDIT + "latents": lambda a, *key: torch.stack(a.edit(*key).latents[a.edit(*key).inverting :]),
    EDIT + "eps_samp_first": lambda a, *key: a.edit(*key).passes[a.edit(*key).inverting][1],
    EDIT + "final": lambda a, *key: a.edit(*key).latents[-1][None],
    EDIT + r"inject(\d+)\.final": lambda a, flow, old_qk, n: a.edit(flow, old_qk, int(n)).latents[-1][None],
    r"edit\.flow_off\.final": lambda a: a.edit(None).latents[-1][None],
}
