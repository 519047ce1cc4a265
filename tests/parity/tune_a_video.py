"""Tune-A-Video against showlab/Tune-A-Video, commit 7d4a89a."""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from assd.diffusion.draw import Draw
from assd.diffusion.frames import first_and_previous, seen
from assd.diffusion.inversion import CLEAN, downwards, upwards
from assd.methods.method import Request, ignore_progress
from assd.methods.recorder import Recorder
from assd.methods.tune_a_video.loop import TuneAVideo
from assd.methods.tune_a_video.tuning import Tuning, checkpointing, denoising_loss, inflated
from assd.models.inflation import Weights, joint_group_norm
from tests.parity.network import TableModel, tiny_unet, weight
from tests.parity.points import Case, Point, in_turn

LAYER, INVERSION, SAMPLING = 1e-5, 2e-5, 2e-4  # relative L2, the README's section 7
LOSS, GRADIENT, UPDATE, TUNED_INVERSION, TUNED = 2e-6, 5e-5, 3e-4, 2e-5, 3e-4
PROMPTS = ("", "source", "target")  # the keys of their embeddings are 0, 1, 2
RESNET, TRANSFORMER = "down_blocks.0.resnets.0", "down_blocks.0.attentions.0"
BLOCK = f"{TRANSFORMER}.transformer_blocks.0"
BLOCKS = {"down1": "down_blocks.1", "down3": "down_blocks.3", "mid": "mid_block", "up0": "up_blocks.0",
          "up1": "up_blocks.1"}  # fmt: skip
WITHOUT_EFFECT = re.compile(r"up_blocks\.3\.attentions\.2\..*attn_temp\.to_out\.0\.bias")
TRAINING = {  # of point 5: with published checkpointing, the encoder was not trained
    "nockpt": dict(train_down_path=True, gradient_checkpointing=False),
    "ckpt": dict(train_down_path=False, gradient_checkpointing=True),
}


@dataclass(frozen=True)
class Setting:
    """A case and our method with its settings, `weights` by the formula."""

    case: Case
    method: TuneAVideo
    weights: Weights

    @property
    def model(self) -> TableModel:
        """The tiny network."""
        return self.method.model

    @property
    def frames(self) -> int:
        """f."""
        return self.method.num_frames

    def latent(self, key: int) -> Tensor:
        """A random latent (c, f, h, w)."""
        s = self.case.settings
        return self.case.normal(key, (1, 4, s["f"], s["h"], s["w"]))[0]

    def silent(self, *parameters: str) -> Weights:
        """The weights with these parameters of the temporal output projections at 0."""
        ends = tuple(f"attn_temp.to_out.0.{parameter}" for parameter in parameters)
        return {n: nn.Parameter(torch.zeros_like(w)) if n.endswith(ends) else w for n, w in self.weights.items()}


def points(case: Case) -> Iterator[Point]:
    """All recorded points, from index tables to edits with a tuned network."""
    ours = setting(case)
    tuned = (tunings(ours, mode) for mode in TRAINING)
    yield from in_turn(tables(ours), steps(ours), layers(ours), forwards(ours), edits(ours), *tuned)


def setting(case: Case) -> Setting:
    """The method as the case sets it."""
    s = case.settings
    embeddings = {prompt: case.normal(key, (1, 77, 32)) for key, prompt in enumerate(PROMPTS)}
    model = TableModel(tiny_unet(case.seed), embeddings)
    tuning = Tuning(
        steps=len(s["train_t"]),
        learning_rate=s["lr"],
        weight_decay=1e-2,
        max_gradient_norm=s["max_grad_norm"],
        temporal_bias="random",
        **TRAINING["nockpt"],
    )
    method = TuneAVideo(
        model=model,
        tuning=tuning,
        num_frames=s["f"],
        height=8 * s["h"],
        width=8 * s["w"],
        seed=case.seed,
        inversion_steps=s["inv_steps"],
        sampling_steps=s["steps"],
        guidance_scale=max(1, s["guidance"]),  # as published: below there is none
        negative_prompt="",
        network_time="target",
        checkpoint_every=1,
        checkpoint_seconds=float("inf"),
    )
    return Setting(case, method, formula_weights(tuning, model, case.seed))


def formula_weights(tuning: Tuning, model: TableModel, seed: int) -> Weights:
    """What a tuning starts from, but by the formula."""
    weights = tuning.weights(model, (seed, "clip"), {})
    return {name: nn.Parameter(weight(name, tuple(w.shape), seed), requires_grad=False) for name, w in weights.items()}


def tables(ours: Setting) -> Iterator[Point]:
    """Which frames a frame sees, in which order, and what is trained."""
    case = ours.case
    for name, number in numbered(case, r"p1_kv_count_f(\d+)"):
        tokens = seen(torch.arange(number).reshape(-1, 1, 1, 1), first_and_previous(number))
        yield case.exact(name, [[(row == j).sum() for j in range(number)] for row in tokens.numpy()])
    rows, columns = case["p1_kv_token_ids"].shape
    b, f, tokens = np.ogrid[:2, : rows // 2, : columns // 2]
    ids = torch.from_numpy(100 * b + 10 * f + tokens).reshape(rows, 1, columns // 2, 1)
    yield case.exact("p1_kv_token_ids", seen(ids, first_and_previous(rows // 2)).squeeze())
    trained = {name for name in ours.weights if ours.method.tuning.trains(name)}
    yield Point("case.json: trainable names", len(trained ^ set(case.facts["trainable"]["names"])), 0)


def steps(ours: Setting) -> Iterator[Point]:
    """The schedule, and single updates with a made-up eps."""
    case, ddim, schedule = ours.case, ours.method.ddim, ours.model.schedule
    x, eps = ours.latent(100)[None], ours.latent(101)[None]
    up = upwards(schedule.timesteps(ours.method.inversion_steps)[::-1])
    down = downwards(schedule.timesteps(ours.method.sampling_steps))
    below_zero = up[0][1] - len(schedule) // ours.method.inversion_steps  # their name of a clean latent's timestep
    yield case.relative("p1_alphas_cumprod", np.square(schedule.alphas), LAYER)
    yield case.exact("p1_timesteps_sampling", [t for t, _ in down])
    yield case.exact("p1_timesteps_inversion", [t for _, t in up])
    yield case.exact("p1_inversion_source_times", [below_zero if s == CLEAN else s for s, _ in up])
    for name, t in numbered(case, r"p1_next_step_t(\d+)"):
        s = t - len(schedule) // ours.method.inversion_steps
        yield case.relative(name, ddim.inversion_step(lambda *_: eps, x, s if s >= 0 else CLEAN, t), LAYER)
    for name, t in numbered(case, r"p1_ddim_step_t(\d+)"):
        to = t - len(schedule) // ours.method.sampling_steps
        yield case.relative(name, ddim.step(eps, x, t, to if to >= 0 else CLEAN), LAYER)


def layers(ours: Setting) -> Iterator[Point]:
    """Single layers, each video's frames as a batch."""
    case, module, f = ours.case, ours.model.network.get_submodule, ours.frames
    _, source, target = (repeat(ours.model.embed((prompt,)), "1 l d -> f l d", f=f) for prompt in PROMPTS)
    with inflated(ours.model, ours.weights, f):
        states = case.tensor("p2_scattn_in")
        yield case.relative("p2_scattn_out", module(f"{BLOCK}.attn1")(states), LAYER)
        temporal = module(f"{BLOCK}.attn_temp")(case.tensor("p2_temp_attn_in"))
        yield case.relative("p2_temp_attn_out", temporal, LAYER)
        block = module(BLOCK)(states, encoder_hidden_states=torch.cat([source, target]))
        yield case.relative("p2_block_out", block, LAYER)
        folded = rearrange(case.tensor("p2_transformer3d_in"), "b c f h w -> (b f) c h w")
        transformed = module(TRANSFORMER)(folded, encoder_hidden_states=source).sample
        yield case.relative("p2_transformer3d_out", rearrange(transformed, "f c h w -> 1 c f h w"), LAYER)
        folded = rearrange(case.tensor("p2_resnet_in"), "b c f h w -> (b f) c h w")
        resnet = module(RESNET)(folded, repeat(case.tensor("p2_resnet_temb"), "1 d -> f d", f=f))
        yield case.relative("p2_resnet_out", rearrange(resnet, "f c h w -> 1 c f h w"), LAYER)


def forwards(ours: Setting) -> Iterator[Point]:
    """One pass of the U-Net: intermediate results, and what it predicts in variants."""
    case, model, f, t = ours.case, ours.model, ours.frames, ours.case.settings["fwd_t"]
    x, source = ours.latent(100)[None], model.embed(("source",))
    tapped = {
        "temb": ("time_embedding", "f d -> f d"),
        "conv_in": ("conv_in", "f c h w -> 1 c f h w"),
        **{f"blk_{name}": (f"{BLOCK}.{name}", "f l d -> f l d") for name in ("attn1", "attn2", "ff", "attn_temp")},
        "down0_attn0": (TRANSFORMER, "f c h w -> 1 c f h w"),
        **{name: (path, "f c h w -> 1 c f h w") for name, path in BLOCKS.items()},
        "norm_out": ("conv_norm_out", "f c h w -> 1 c f h w"),
    }
    with inflated(model, ours.weights, f):
        with outputs(model.network, [path for path, _ in tapped.values()]) as found:
            eps = model.predict(x, t, source)
        for name, (path, axes) in tapped.items():
            output = rearrange(found[path], axes)
            yield case.relative(f"p2_fwd_{name}", output[:1] if name == "temb" else output, LAYER)
        yield case.relative("p2_fwd_eps", eps, LAYER)
        both = model.predict(torch.cat([x, x]), t, model.embed(("", "target")))
        yield case.relative("p2_fwd_eps_cfg_batch", both, LAYER)
        with joint_group_norm(model.network, 1):
            per_frame = model.predict(x, t, source)
        yield case.relative("p2_fwd_eps_full_but_per_frame_groupnorm", per_frame, LAYER)
    for name, zeros in (("identity", ("weight", "bias")), ("zero_weight", ("weight",))):
        with inflated(model, ours.silent(*zeros), f):
            yield case.relative(f"p2_fwd_eps_temporal_{name}", model.predict(x, t, source), LAYER)
    yield case.relative("p2_fwd_eps_plain_per_frame", model.predict(x, t, source), LAYER)


def edits(ours: Setting) -> Iterator[Point]:
    """Inversion and sampling with a network that was not tuned."""
    case, method, x0 = ours.case, ours.method, ours.latent(100)
    with inflated(ours.model, ours.weights, ours.frames):
        first = upwards(ours.model.schedule.timesteps(method.inversion_steps)[::-1])[0][1]
        yield case.relative("p3_first_eps", method.predict("", 1, x0[None], first), LAYER)
    up = inverted(ours, x0)
    yield case.relative("p3_inversion_latents", torch.stack([x0, *up])[listed(case, "p3_inversion_latents")], INVERSION)
    down = sampled(ours, up[-1])
    after = [step - 1 for step in listed(case, "p4_sampling_latents")]
    yield case.relative("p4_sampling_latents", torch.stack(down)[after], SAMPLING)
    for name, start, changes in (
        ("no_cfg", up[-1], {"guidance_scale": 1}),
        ("random_start", ours.latent(101), {}),
        ("negative_prompt", up[-1], {"negative_prompt": "source"}),
    ):
        varied = replace(ours, method=replace(method, **changes))
        yield case.relative(f"p4_{name}_final", sampled(varied, start)[-1][None], SAMPLING)
    identity = replace(ours, weights=ours.silent("weight", "bias"))
    z_T = inverted(identity, x0)[-1]
    yield case.relative("p4_temporal_identity_inverted", z_T[None], INVERSION)
    yield case.relative("p4_temporal_identity_final", sampled(identity, z_T)[-1][None], SAMPLING)


def tunings(ours: Setting, mode: str) -> Iterator[Point]:
    """Tuning from the formula's weights, then inversion and sampling with what it gave."""
    case, s = ours.case, ours.case.settings
    tuning = replace(ours.method.tuning, **TRAINING[mode])
    method = replace(ours.method, tuning=tuning, inversion_steps=s["e2e_inv"], sampling_steps=s["e2e_steps"])
    tuned = replace(ours, method=method, weights=formula_weights(tuning, ours.model, case.seed))
    optimizer = tuning.optimizer(tuned.weights, {})
    told = []
    with inflated(ours.model, tuned.weights, ours.frames), checkpointing(ours.model, tuning.gradient_checkpointing):
        for number, t in enumerate(s["train_t"], start=1):
            Z, draw = training_latent(ours, number), Draw(t, ours.latent(119 + number))
            if mode == "nockpt":
                yield case.relative(f"p5_train_latents_step{number}", Z[None], LAYER)
            yield from gradients(tuned, f"p5_{mode}_grad{number}:", Z, draw)
            told.append(tuning.descend(ours.model, optimizer, Z, "source", draw))
            yield from updates(tuned, f"p5_{mode}_value{number}:")
    yield case.relative(f"p5_{mode}_losses", [float(one["loss"]) for one in told], LOSS)
    yield case.relative(f"p5_{mode}_grad_norms", [float(one["gradient_norm"]) for one in told], GRADIENT)
    z_T = inverted(tuned, Z)[-1]
    yield case.relative(f"p5_{mode}_inverted", z_T[None], TUNED_INVERSION)
    yield case.relative(f"p5_{mode}_final", sampled(tuned, z_T)[-1][None], TUNED)


def training_latent(ours: Setting, number: int) -> Tensor:
    """The latent of a tuning step, which their autoencoder's factor went over and back."""
    scale = ours.model.latents.scale
    return (ours.latent(100) + 0.1 * ours.latent(109 + number)) * (1 / scale) * scale


def gradients(tuned: Setting, prefix: str, Z: Tensor, draw: Draw) -> Iterator[Point]:
    """Of the weights whose gradients were recorded, before they are cut."""
    names = below(tuned.case, prefix)
    if names:
        with torch.enable_grad():
            loss = denoising_loss(tuned.model, Z, "source", draw)
            found = torch.autograd.grad(loss, [tuned.weights[name] for name in names])
        for name, gradient in zip(names, found):
            yield tuned.case.relative(prefix + name, gradient, GRADIENT)


def updates(tuned: Setting, prefix: str) -> Iterator[Point]:
    """How far recorded weights moved from the formula's."""
    for name in below(tuned.case, prefix):
        value = tuned.weights[name].detach()
        yield tuned.case.relative(prefix + name, value, UPDATE, weight(name, tuple(value.shape), tuned.case.seed))


def inverted(ours: Setting, Z: Tensor) -> list[Tensor]:
    """The latents after each step of inversion."""
    return recorded(ours, lambda recorder: ours.method.invert(Z, ours.weights, recorder))


def sampled(ours: Setting, Z_T: Tensor) -> list[Tensor]:
    """The latents after each step of sampling."""
    return recorded(ours, lambda recorder: ours.method.sample(Z_T, ours.weights, recorder))


def recorded(ours: Setting, phase: Callable[[Recorder], object]) -> list[Tensor]:
    """The latents that a phase leaves in its checkpoints, one a step."""
    latents: list[Tensor] = []
    request = Request("target", checkpoint=lambda checkpoint, _: latents.append(checkpoint["Z"]))
    recorder = Recorder([request], "clip", ours.method.num_steps, every=1, seconds=float("inf"),
                        advance=ignore_progress, advice="")  # fmt: skip
    with inflated(ours.model, ours.weights, ours.frames):
        phase(recorder)
    return latents


@contextlib.contextmanager
def outputs(network: nn.Module, paths: list[str]) -> Iterator[dict[str, Tensor]]:
    """What modules put out, of a block with skip connections what goes on."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Callable:
        return lambda module, inputs, output: found.update({path: output[0] if isinstance(output, tuple) else output})

    with contextlib.ExitStack() as hooks:
        for path in paths:
            hooks.enter_context(network.get_submodule(path).register_forward_hook(keep(path)))
        yield found


def numbered(case: Case, pattern: str) -> Iterator[tuple[str, int]]:
    """The recorded arrays of a name with a number."""
    for name in case.arrays.files:
        if match := re.fullmatch(pattern, name):
            yield name, int(match[1])


def below(case: Case, prefix: str) -> list[str]:
    """What stands behind a prefix in the names of recorded arrays, but for the one bias that is without effect here.

    The last GroupNorm has as many groups as channels and takes away what that bias adds.
    """
    names = [name.removeprefix(prefix) for name in case.arrays.files if name.startswith(prefix)]
    return [
        name for name in names if not re.fullmatch(r"up_blocks\.3\.attentions\.2\..*attn_temp\.to_out\.0\.bias", name)
    ]


def listed(case: Case, name: str) -> list[int]:
    """The numbers in brackets in case.json's words on an array: which of a list its rows are."""
    (words,) = (point["what"] for point in case.facts["points"] if point["array"] == name)
    lists = [[int(number) for number in found.split(",")] for found in re.findall(r"\[(\d+(?:, *\d+)*)\]", words)]
    return next(numbers for numbers in lists if len(numbers) == len(case[name]))
