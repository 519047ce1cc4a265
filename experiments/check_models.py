"""Proves that the published models fit and run, without their weights: `python -m experiments.check_models`.

Builds a text-to-video model and Stable Diffusion at full size with random weights, edits a video of noise for some
steps of the full method, and prints parameter counts, shapes, arithmetic, time and peak memory. Takes overrides:
`model=zeroscope`.
"""

import argparse
import contextlib
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from assd.config import composed
from assd.errors import one_sentence
from assd.methods.method import Request
from assd.methods.score_distillation import ScoreDistillation
from assd.models import LatentDiffusion
from assd.runs.cost import peak_memory, wall_clock
from experiments.common import noise_footage

SOURCE, TARGET = "a bear walking on rocks in a zoo", "a panda walking on rocks in a zoo"
RANDOM = (
    "+experiment=paper",
    "dataset=video",
    "dataset.path=unused",
    f"dataset.source_prompt={SOURCE}",
    f"dataset.target_prompt={TARGET}",
    "model.random=true",
    "image_model.random=true",
)
console = Console()


def parameters(module: torch.nn.Module | None) -> str:
    """How many, in millions."""
    return "not loaded" if module is None else f"{sum(p.numel() for p in module.parameters()) / 1e6:,.1f} M"


def describe(models: dict[str, LatentDiffusion]) -> Table:
    """The networks' sizes and precision."""
    table = Table("model", "U-Net", "text encoder", "autoencoder", "precision", "device")
    for name, model in models.items():
        precision = str(model.unet.dtype).removeprefix("torch.")
        networks = (model.unet, model.text_encoder, model.vae)
        table.add_row(name, *map(parameters, networks), precision, str(model.device))
    return table


def teraflops(unet: torch.nn.Module, z_shape: tuple[int, ...], tokens: int) -> float:
    """The arithmetic of one pass in TFLOP, by torch's counter on tensors of that shape that hold nothing."""
    with torch.device("meta"):
        meta_unet = type(unet).from_config(unet.config)
        z, t = torch.empty(z_shape), torch.empty(1)
        embeddings = torch.empty(z_shape[0], tokens, unet.config.cross_attention_dim)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta_unet(z, t, encoder_hidden_states=embeddings)
    return counter.get_total_flops() / 1e12


def arithmetic(method: ScoreDistillation, Z: Float[Tensor, "c f h w"]) -> dict[str, float]:
    """TFLOP of each U-Net's pass in one step, without fusion: four branches of the video, and of its key frames."""
    tokens = method.model.tokenizer.model_max_length
    counts = {"video": teraflops(method.model.unet, (4, *Z.shape), tokens)}
    if guidance := method.losses.get("joint_guidance"):
        key = Z[:, :: guidance.stride].movedim(1, 0)
        counts["image"] = teraflops(guidance.model.unet, (4 * len(key), *key.shape[1:]), tokens)
    return counts


def matmul_teraflops(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of one large matrix product, the best of three: what a pass can reach at most on this machine."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.ones(n, n, dtype=dtype, device=device)
    seconds = []
    for _ in range(4):  # the first one to warm up
        started = wall_clock(device)
        torch.mm(a, a)
        seconds.append(wall_clock(device) - started)
    return 2 * n**3 / min(seconds[1:]) / 1e12


@dataclass(frozen=True)
class Trial:
    """An edit of noise: seconds of each step and of each U-Net pass, peaks in GiB, the latent before and after."""

    steps: list[float]
    passes: list[float]
    peaks: list[float]  # built, after each step, after decoding
    Z_ref: Float[Tensor, "c f h w"]
    Z: Float[Tensor, "c f h w"]


def edit_noise(method: ScoreDistillation, seed: int, source: str = SOURCE, target: str = TARGET) -> Trial:
    """Edits a video of noise; the device is waited for after each step and around each U-Net pass."""
    model, footage = method.model, noise_footage(method.canvas, seed)
    now = partial(wall_clock, model.device)

    def peak() -> float:
        return peak_memory(model.device) or math.nan  # where the system says nothing

    model.embed(("", "", target, source))  # remembered, as in any step but the first
    times, peaks = [now()], [peak()]

    def advance(step: int) -> None:
        times.append(now())
        peaks.append(peak())

    unets = list({id(loss.model): loss.model.unet for loss in method.losses.values()}.values())
    with noting_passes(unets, now) as passes:
        (edit,) = method(footage, source, [Request(target)], "noise", advance=advance)
    Z_ref, Z = edit.latents["Z_ref"], edit.latents["Z"]
    console.print(f"frames {tuple(footage.frames.shape)}, latent {tuple(Z.shape)}, edited {tuple(edit.frames.shape)}")
    steps = [after - before for before, after in itertools.pairwise(times)]
    return Trial(steps, passes, [*peaks, peak()], Z_ref, Z)


@contextlib.contextmanager
def noting_passes(unets: list[torch.nn.Module], now: Callable[[], float]) -> Iterator[list[float]]:
    """Within it, the seconds of each forward pass of these networks are appended to the list."""
    passes: list[float] = []

    def before(*_: object) -> None:
        passes.append(-now())

    def after(*_: object) -> None:
        passes[-1] += now()

    hooks = [unet.register_forward_pre_hook(before) for unet in unets]
    hooks += [unet.register_forward_hook(after) for unet in unets]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for assd.run, such as model=zeroscope model.num_frames=16")
    overrides = [given for given in parser.parse_args().overrides if given != RANDOM[0]]
    precision = "float16" if torch.cuda.is_available() and "device=cpu" not in overrides else "float32"
    defaults = (f"model.dtype={precision}", f"image_model.dtype={precision}", "model.num_frames=8",
                "steps.distillation=2")  # fmt: skip
    cfg = composed([*RANDOM, *defaults, *overrides])

    started = time.perf_counter()
    method: ScoreDistillation = instantiate(cfg.method, _convert_="all")
    image_model: LatentDiffusion = instantiate(cfg.image_model)
    console.print(f"built in {time.perf_counter() - started:.0f} s")
    console.print(describe({cfg.model.path: method.model, cfg.image_model.path: image_model}))
    trial = edit_noise(method, cfg.seed)
    steps = ", ".join(f"{s:.2f}" for s in trial.steps)
    console.print(f"{len(trial.steps)} steps with fusion and joint guidance: {steps} s (the first with encoding)")
    last, inside = trial.steps[-1], sum(trial.passes[-len(trial.passes) // len(trial.steps) :])
    counts = arithmetic(method, trial.Z)
    floor = ", ".join(f"{count:.1f} TFLOP in the {name} U-Net" for name, count in counts.items())
    console.print(
        f"of the last one, {1 - inside / last:.1%} outside the U-Nets. Its arithmetic: {floor}. That is "
        f"{sum(counts.values()) / last:.2f} TFLOP/s, and {sum(counts.values()) / inside:.2f} in the passes, of "
        f"{matmul_teraflops(method.model.device, method.model.unet.dtype):.2f} that a matrix product reaches here"
    )
    built, *_, after_loop, after_decoding = trial.peaks
    console.print(
        f"peak of {'GPU' if method.model.device.type == 'cuda' else 'host'} memory: {built:.1f} GiB once built, "
        f"{after_loop:.1f} GiB up to the last step, {after_decoding:.1f} GiB with decoding"
    )
    moved = bool(trial.Z.isfinite().all()) and not torch.equal(trial.Z, trial.Z_ref)
    sys.exit(0 if moved else "the latent did not move, or holds NaN or Inf")


if __name__ == "__main__":
    main()
