"""Proves that the published models fit and run, without their weights: `python -m experiments.check_models`.

Builds the networks of a method at full size with random weights, edits a video of noise for a few steps, and prints
parameter counts, shapes, arithmetic, time and peak memory. Takes overrides: `model=zeroscope`, or another method:
`method=fatezero`. The five published editors edit 8 frames of 512 x 512, two steps a phase.
"""

import argparse
import contextlib
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from assd.config import composed
from assd.console import console as make_console
from assd.device import wall_clock
from assd.errors import InputError, one_sentence
from assd.methods.method import Method, Request
from assd.models import LatentDiffusion
from assd.runs.cost import peak_memory
from experiments.common import chosen_method, few_steps, noise_footage
from experiments.passes import Pass, models_of, networks_of, noting_passes

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
PUBLISHED_SIZE = ("model.height=512", "model.width=512")  # of the five editors' image model
CONTROL_NET = ("control_net=canny", "control_net.network.random=true")
ROOM = 24  # GiB of memory that a check on the CPU should do with
console = make_console()


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


def teraflops(noted: Pass) -> float:
    """The arithmetic of a pass in TFLOP, by torch's counter on a bare network of that kind that holds nothing."""
    with torch.device("meta"):
        bare = type(noted.network).from_config(noted.network.config).to(noted.network.dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bare(*noted.args, **noted.kwargs)
    return counter.get_total_flops() / 1e12


def peak(device: torch.device) -> float:
    """The peak of memory in GiB; not a number where the system says nothing."""
    return peak_memory(device) or math.nan


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
class Step:
    """Of one step the seconds, the networks' passes, and the peak in GiB up to its end."""

    seconds: float
    passes: list[Pass]
    peak: float


@dataclass(frozen=True)
class Trial:
    """An edit of noise: its steps, the peaks in GiB before and after them, the latent before and after."""

    built: float
    steps: list[Step]
    decoded: float
    Z_ref: Float[Tensor, "c f h w"]
    Z: Float[Tensor, "c f h w"]

    @property
    def moved(self) -> bool:
        """Whether the latent is another one, and finite."""
        return bool(self.Z.isfinite().all()) and not torch.equal(self.Z, self.Z_ref)


def edit_noise(method: Method, seed: int, source: str = SOURCE, target: str = TARGET) -> Trial:
    """Edits a video of noise; the device is waited for after each step and around each network's pass."""
    (model, *_), footage = models_of(method).values(), noise_footage(method.canvas, seed)
    now = partial(wall_clock, model.device)
    model.embed(("", "", target, source))  # remembered, as in any step but the first
    built, began, steps = peak(model.device), [now()], []

    def advance(step: int) -> None:
        began.append(now())
        steps.append(Step(began[-1] - began[-2], passes[:], peak(model.device)))
        passes.clear()
        console.print(f"step {step} of {method.num_steps}: {steps[-1].seconds:.2f} s, peak {steps[-1].peak:.1f} GiB")

    with noting_passes(networks_of(method).values(), now) as passes:
        (edit,) = method(footage, source, [Request(target)], "noise", advance=advance)
    Z_ref, Z = edit.latents["Z_ref"], edit.latents["Z"]
    console.print(f"frames {tuple(footage.frames.shape)}, latent {tuple(Z.shape)}, edited {tuple(edit.frames.shape)}")
    return Trial(built, steps, peak(model.device), Z_ref, Z)


@contextlib.contextmanager
def missing_memory_said() -> Iterator[None]:
    """Within it memory that can't be had is an InputError: how much there was until then, how much was asked for."""
    try:
        yield
    except RuntimeError as error:  # torch's only name for it on the CPU
        if "allocate" not in str(error):
            raise
        reached = peak(torch.device("cuda" if isinstance(error, torch.OutOfMemoryError) else "cpu"))
        asked = str(error).partition("\n")[0]
        raise InputError(
            f"the memory is full at {reached:.1f} GiB: {asked}\n"
            f"Take fewer frames, model.num_frames=4, or a smaller canvas, model.height=256 model.width=256"
        ) from error


def kinds(names: dict[str, nn.Module], steps: list[Step]) -> Counter[tuple[str, int]]:
    """How many passes there were of each network at each size of its batch."""
    name_of = {network: name for name, network in names.items()}
    return Counter((name_of[noted.network], noted.batch) for step in steps for noted in step.passes)


def print_times(method: Method, trial: Trial) -> None:
    """The passes of all steps; of the last one what lies outside of them, and its arithmetic."""
    names, last = networks_of(method), trial.steps[-1]
    for (name, batch), count in kinds(names, trial.steps).items():
        console.print(f"{count} passes of the {name}, a batch of {batch}")
    inside, counts = sum(noted.seconds for noted in last.passes), [teraflops(noted) for noted in last.passes]
    console.print(
        f"of the last step, {1 - inside / last.seconds:.1%} outside the passes, whose arithmetic is "
        f"{' + '.join(f'{count:.1f}' for count in counts)} TFLOP in the bare networks. That is "
        f"{sum(counts) / last.seconds:.2f} TFLOP/s, and {sum(counts) / inside:.2f} in the passes, of "
        f"{matmul_teraflops(trial.Z.device, last.passes[0].network.dtype):.2f} that a matrix product reaches here"
    )


def print_memory(device: torch.device, trial: Trial) -> None:
    """The peaks, and whether they are within what a check on the CPU should do with."""
    where = "GPU" if device.type == "cuda" else "host"
    within = f": {'within' if trial.decoded <= ROOM else 'more than'} {ROOM} GiB" if where == "host" else ""
    console.print(
        f"peak of {where} memory: {trial.built:.1f} GiB once built, {trial.steps[-1].peak:.1f} GiB up to the last "
        f"step, {trial.decoded:.1f} GiB with decoding{within}"
    )


def settings(overrides: Sequence[str]) -> list[str]:
    """The overrides of a check: full size and random weights, few frames and steps; those given precede them."""
    method = chosen_method(overrides)
    half = "bfloat16" if method == "tune_a_video" else "float16"  # in float16 gradients vanish
    precision = f"dtype={half if torch.cuda.is_available() and 'device=cpu' not in overrides else 'float32'}"
    size = () if method == "score_distillation" else PUBLISHED_SIZE
    control = (*CONTROL_NET, f"control_net.network.{precision}") if method == "control_video" else ()
    chosen = [*RANDOM, f"model.{precision}", f"image_model.{precision}", "model.num_frames=8", *size, *control]
    by_key = {override.partition("=")[0]: override for override in (*chosen, *few_steps(overrides, 2), *overrides)}
    return list(by_key.values())


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for assd.run, such as model=zeroscope model.num_frames=16")
    cfg = composed(settings(parser.parse_args().overrides))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("assd").setLevel(logging.INFO)  # what a method says of the memory that it will take

    started = time.perf_counter()
    method: Method = instantiate(cfg.method, _convert_="all")
    console.print(f"built in {time.perf_counter() - started:.0f} s")
    paths = {"video": cfg.model.path, "image": cfg.image_model.path}
    console.print(describe({paths[kind]: model for kind, model in models_of(method).items()}))
    if "ControlNet" in networks_of(method):
        console.print(f"and a ControlNet of {parameters(networks_of(method)['ControlNet'])}")
    with missing_memory_said():
        trial = edit_noise(method, cfg.seed)
    print_times(method, trial)
    print_memory(trial.Z.device, trial)
    sys.exit(0 if trial.moved else "the latent did not move, or holds NaN or Inf")


if __name__ == "__main__":
    main()
