"""ControlVideo: https://github.com/YBYBZhang/ControlVideo at 4eac95f."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor

from assd.diffusion.attention import layer
from assd.diffusion.frames import all_frames
from assd.diffusion.inversion import downwards
from assd.diffusion.schedule import split
from assd.methods.control_video import ControlVideo
from assd.methods.control_video.smoother import triples
from assd.methods.control_video.windows import key_frames, window_clips, window_table
from assd.methods.method import Request
from assd.methods.recorder import Recorder
from assd.models.conditions import Canny, wrapped
from assd.models.control_net import ControlNet
from tests.parity.network import UNET, TableModel, set_weights, tiny_unet
from tests.parity.points import Case, Point, in_turn

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
SIDE = 8  # pixels along a latent pixel
NEGATIVE, POSITIVE = "negative", "positive"
SMOOTHER_STEPS = 8  # of the points of the smoother alone, in every case
NOT_COVERED = {"R1": "no RIFE here: no library that is kept up offers the published HDv3 network"}


def points(case: Case) -> Iterator[Point]:
    """From index tables over one layer and one pass to complete edits."""
    bench = Bench(case)
    yield from in_turn(bench.tables(), bench.attention(), bench.one_pass(), bench.smoother(), bench.edits())
    for point, reason in NOT_COVERED.items():
        if any(name.startswith(point) for name in case.arrays.files):
            print(f"not covered: {point} ({reason})", flush=True)


class Bench:
    """One case's method, and what it is compared in."""

    def __init__(self, case: Case):
        self.case, self.settings = case, case.settings
        self.h, self.w, self.ff = (self.settings[name] for name in ("h", "w", "ff"))
        prompts = {POSITIVE: case.normal(1, (1, 77, 32)), NEGATIVE: case.normal(2, (1, 77, 32))}
        unet = tiny_unet(case.seed, block_out_channels=tuple(self.settings["block_out_channels"]))
        self.model = TableModel(unet, prompts, encoder=self.encode, decoder=self.decode)
        self.control_net = ControlNet(tiny_control_net(case))
        cells = np.random.default_rng([case.seed, 200]).random((16, 3, self.h, self.w)).astype(np.float32)
        self.maps = repeat(torch.from_numpy(cells), "f c h w -> f c (h i) (w j)", i=SIDE, j=SIDE)

    def encode(self, frames: Tensor) -> Tensor:
        """The toy autoencoder's: the mean of 8 x 8 pixels, times B."""
        means = reduce(frames, "f r (h i) (w j) -> f r h w", "mean", i=SIDE, j=SIDE)
        return einsum(torch.tensor(self.settings["toy_encode_B"]), means, "c r, f r h w -> c f h w")

    def decode(self, Z: Tensor) -> Tensor:
        """The toy autoencoder's: M times the latent, each pixel 8 x 8 times."""
        colours = einsum(torch.tensor(self.settings["toy_decode_M"]), Z, "r c, c f h w -> f r h w")
        return repeat(colours, "f r h w -> f r (h i) (w j)", i=SIDE, j=SIDE).clamp(-1, 1)

    def method(self, **changes: Any) -> ControlVideo:
        """As published, with changes."""
        published = dict(
            model=self.model,
            control_net=self.control_net,
            condition=Canny(),
            num_frames=self.settings["f"],
            height=SIDE * self.h,
            width=SIDE * self.w,
            seed=self.case.seed,
            guidance_scale=self.settings["guidance"],
            prompt_suffix="",
            negative_prompt=NEGATIVE,
            sampling_steps=self.settings["N"],
            conditioning_scale=self.settings["conditioning_scale"],
            smooth_steps=(),
            interpolation="average",
            window=None,
            window_sees="first_and_last",
            residuals_in_place=True,
            wrap_control_frames=True,
            checkpoint_every=1,
            checkpoint_seconds=1e9,
        )
        return ControlVideo(**{**published, **changes})

    def near(self, name: str, ours: Tensor) -> Point:
        """A recorded array within case.json's tolerance, or the README's: 1e-5 for a pass, 5e-5 for an edit."""
        stated = next(point["tolerance"] for point in self.case.facts["points"] if point["name"] == name)
        usual = 5e-5 if name[0] in "FG" else 1e-5
        return self.case.relative(name, ours, stated["suggested_relative"] if stated else usual)

    def named(self, pattern: str) -> list[re.Match]:
        """The recorded arrays whose name is of a form."""
        return [found for name in self.case.arrays.files if (found := re.fullmatch(pattern, name))]

    def tables(self) -> Iterator[Point]:
        """A: timesteps, which frames are interpolated, key frames and windows, wrapped bytes."""
        schedule = self.model.schedule
        steps = downwards(schedule.timesteps(self.settings["N"]))
        yield self.case.exact("A1_timesteps", [t for t, _ in steps])
        yield self.near("A1_alpha_t", torch.tensor([schedule[t].alpha ** 2 for t, _ in steps]))
        yield self.near("A1_alpha_prev", torch.tensor([schedule[to].alpha ** 2 for _, to in steps]))
        for found in self.named(r"A2_triples_f(\d+)_(even|odd)"):
            ours = triples(int(found[1]), step=("even", "odd").index(found[2]))
            yield self.case.exact(found[0], np.reshape(ours, (-1, 3)))
        for name, recorded in self.case.facts["details"]["A3_windows"].items():
            keys = key_frames(*(int(number[1:]) for number in name.split("_")))
            inner = [clip[2:] for clip in window_clips(keys)]
            same = keys == recorded["key"] and inner == [window for window in recorded["inner"] if window]
            yield Point(f"A3_windows_{name}", 0.0 if same else 1.0, 0)
        grey = (torch.arange(256.0) / 127.5 - 1).expand(1, 3, 1, 256)
        yield self.case.exact("A4_wrap_table", wrapped(grey)[0, 0, :, 0])

    def attention(self) -> Iterator[Point]:
        """B: one layer under each frame table, and which input frame reaches which output frame."""
        states, window = self.case.normal(110, (2 * self.ff, 64, 32)), window_table(self.ff, "first_and_last")
        with self.method().as_clip(self.maps[: self.ff], all_frames(self.ff)):
            yield self.near("B1_attn_full", layer(self.model.network, ATTENTION)(states))
            yield self.case.exact("B4_influence_full", self.influence(self.model.network, states))
            yield self.near("B3_attn_controlnet_perframe", layer(self.control_net.network, ATTENTION)(states))
            yield self.case.exact("B4_influence_perframe", self.influence(self.control_net.network, states))
        with self.method().as_clip(self.maps[: self.ff], window):
            yield self.near("B2_attn_inter", layer(self.model.network, ATTENTION)(states))
            yield self.case.exact("B4_influence_inter", self.influence(self.model.network, states))

    def influence(self, network: torch.nn.Module, states: Tensor) -> Tensor:
        """[output frame, input frame]: 1 where the output changes with the input."""
        attend, columns = layer(network, ATTENTION), []
        for j in range(self.ff):
            perturbed = states.clone()
            perturbed[j] += 1
            columns.append((attend(perturbed) != attend(states)).flatten(1).any(1)[: self.ff])
        return torch.stack(columns, dim=1).int()

    def one_pass(self) -> Iterator[Point]:
        """C and D: the ControlNet's residuals, and the U-Net's pass without and with them."""
        t, maps, whole = self.settings["t_forward"], self.maps[: self.ff], all_frames(self.ff)
        z = self.case.normal(101, (1, 4, self.ff, self.h, self.w)).repeat(2, 1, 1, 1, 1)
        embedding = self.control_net.network.controlnet_cond_embedding(maps)
        yield self.near("C0_cond_embedding", as_video(embedding, self.ff))
        yield from self.residuals(z, t, maps)
        variants = {
            "D1_unet_nores": (self.method(conditioning_scale=0.0), whole, None),
            "D2_unet_res": (self.method(), whole, "D2_mid_in"),
            "D3_unet_res_noalias": (self.method(residuals_in_place=False), whole, "D3_mid_in_noalias"),
            "D4_unet_res_inter": (self.method(), window_table(self.ff, "first_and_last"), None),
        }
        embeddings = self.model.embed((NEGATIVE, POSITIVE))
        for name, (method, table, mid) in variants.items():
            with method.as_clip(maps, table), first_inputs(self.model.network.mid_block.resnets[0]) as inputs:
                prediction = self.model.predict(z, t, embeddings)
            if mid:
                yield self.near(mid, as_video(inputs[0], self.ff))
            yield self.near(name, prediction)

    def residuals(self, z: Tensor, t: int, maps: Tensor) -> Iterator[Point]:
        """C: what the ControlNet adds, its GroupNorms over all frames."""
        embeddings = self.model.embed((NEGATIVE, POSITIVE)).repeat_interleave(self.ff, 0)
        inputs = rearrange(z, "b c f h w -> (b f) c h w"), t, embeddings, maps.repeat(2, 1, 1, 1)
        with self.method().as_clip(maps, all_frames(self.ff)):
            skips, mid = self.control_net.residuals(*inputs, self.settings["conditioning_scale"])
        yield self.near("C1_res0_cond", as_video(skips[0], self.ff)[1:])
        yield self.near("C2_res11", as_video(skips[-1], self.ff))
        yield self.near("C3_mid", as_video(mid, self.ff))

    def smoother(self) -> Iterator[Point]:
        """E: one step with the smoother, at a prediction that is given."""
        shape = (1, 4, 8, self.h, self.w)
        x0, eps = 8 * self.case.normal(300, shape), self.case.normal(301, shape)
        steps = downwards(self.model.schedule.timesteps(SMOOTHER_STEPS))
        for found in self.named(r"(E_f(\d+)_i(\d+))_x_prev"):
            name, frames, i = found[1], int(found[2]), int(found[3])
            method = self.method(sampling_steps=SMOOTHER_STEPS, smooth_steps=[SMOOTHER_STEPS - i])
            given, (t, to) = eps[:, :, :frames], steps[i]
            z = self.model.schedule[t].add_noise(x0[:, :, :frames], given)
            before = split(self.model.prediction, given, z, self.model.schedule[t]).x0[0]
            yield self.near(f"{name}_x0_before", rearrange(before, "c f h w -> f c h w"))
            yield self.near(f"{name}_x0_after", rearrange(method.smooth(before, i), "c f h w -> f c h w"))
            yield self.near(f"{name}_x_prev", method.step(given, z, i, t, to))

    def edits(self) -> Iterator[Point]:
        """F and G: complete edits, as one clip and by windows, each as published or with the options in its name."""
        for found in self.named(r"([FG])\d_(?:sample|long)(?:_w(\d+))?(\w*?)_(?:latents|final)"):
            name, kind, window, options = found[0], found[1], found[2], found[3]
            suffix = "_long" if kind == "G" else ""
            method = self.method(
                num_frames=self.settings[f"f{suffix}"],
                sampling_steps=self.settings[f"N{suffix}"],
                smooth_steps=self.smooth_steps(suffix) if "smooth" in options else (),
                window=int(window) if window else None,
                window_sees="keys" if "kvkeys" in options else "first_and_last",
                residuals_in_place="noalias" not in options,
            )
            latents = self.edit(method)
            yield from self.inside(name.split("_")[0], method, latents)
            yield self.near(name, latents[-1:] if name.endswith("final") else latents)

    def smooth_steps(self, suffix: str) -> list[int]:
        """Those of the sampling's steps; the published code takes others too, which never come."""
        return [step for step in self.settings[f"smooth_steps{suffix}"] if 1 <= step <= self.settings[f"N{suffix}"]]

    def noise(self, frames: int) -> Tensor:
        """What the recorded edits start from: the same in every frame."""
        return self.case.normal(100, (1, 4, 1, self.h, self.w)).repeat(1, 1, frames, 1, 1)

    def edit(self, method: ControlVideo) -> Tensor:
        """The latents after every step."""
        latents = []
        request = Request(POSITIVE, checkpoint=lambda checkpoint, _: latents.append(checkpoint["Z"].clone()))
        recorder = Recorder([request], "clip", method.num_steps, every=1, seconds=1e9, advance=int, advice="")
        method.sample(self.noise(method.num_frames), (POSITIVE,), self.maps[: method.num_frames], recorder)
        return torch.stack(latents)

    def inside(self, number: str, method: ControlVideo, latents: Tensor) -> Iterator[Point]:
        """What is recorded of single steps of an edit: the guided noise, and the clean latent about the smoother."""
        starts = torch.cat([self.noise(method.num_frames), latents])
        for found in self.named(rf"{number}_eps_(?:step|i)(\d+)"):
            i = int(found[1])
            z, t = starts[i : i + 1], self.model.schedule.timesteps(method.sampling_steps)[i]
            prediction = method.predict(z, t, (POSITIVE,), self.maps[: method.num_frames])
            x0, eps = split(self.model.prediction, prediction, z, self.model.schedule[t])
            yield self.near(found[0], eps)
            if f"{number}_x0_before_i{i}" in self.case:
                yield self.near(f"{number}_x0_before_i{i}", x0)
                yield self.near(f"{number}_x0_after_i{i}", method.smooth(x0[0], i)[None])


def tiny_control_net(case: Case) -> ControlNetModel:
    """The ControlNet beside the tiny U-Net: its last, zero convolutions scaled down, those of the maps scaled up."""
    shared = {key: value for key, value in UNET.items() if key not in ("sample_size", "out_channels", "up_block_types")}
    network = ControlNetModel(
        **{**shared, "block_out_channels": tuple(case.settings["block_out_channels"])},
        conditioning_embedding_out_channels=tuple(case.settings["conditioning_embedding_out_channels"]),
    )
    set_weights(network, case.seed, prefix="controlnet.")
    for name, parameter in network.named_parameters():
        if name.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
            parameter.data *= case.settings["zero_conv_factor"]
        elif name.startswith("controlnet_cond_embedding") and name.endswith("weight"):
            parameter.data *= case.settings["cond_embedding_weight_factor"]
    return network


def as_video(batch: Tensor, frames: int) -> Tensor:
    """Frames of a batch in the order (b f) as videos."""
    return rearrange(batch, "(b f) c h w -> b c f h w", f=frames)


@contextlib.contextmanager
def first_inputs(module: torch.nn.Module) -> Iterator[list[Tensor]]:
    """The module's first argument at each of its calls within the context."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    try:
        yield seen
    finally:
        handle.remove()
