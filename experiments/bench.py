"""Ratios of things timed side by side in one process: `make bench`.

Each ratio is the median over rounds of A's time over B's, A and B in turn, so that a drifting machine slows both. By
default of the embedded models; `python -m experiments.bench model=modelscope model.random=true image_model.random=true`
has the published sizes, and anything else that assd.run takes.

A published editor is timed beside the passes that it is made of: they are counted in a run of it, and made again by the
bare networks, backward too where it trains. So a method that saves attention can lie below 1.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from diffusers import DDPMScheduler
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.table import Table

from assd.config import composed
from assd.console import console as make_console
from assd.diffusion.draw import draw_step
from assd.diffusion.guidance import guided_noise
from assd.errors import one_sentence, require
from assd.methods.method import Request
from assd.methods.score_distillation import ScoreDistillation
from assd.methods.score_distillation.fusion import unmodified
from assd.models import LatentDiffusion
from experiments.bare import short_edits
from experiments.common import noise_footage

ROUNDS = 9
STEPS = 4  # of score distillation in one measurement
PHASE = 10  # steps of each phase of a published editor
SOURCE = "a red circle moving right over snow"
TARGETS = ("a blue circle", "a red star", "a green circle", "a black square")
TARGETS = tuple(f"{start} moving right over snow" for start in TARGETS)


def ratio(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of time(a) / time(b) over rounds, after one of each to warm up."""
    a()
    b()
    ratios = [seconds(a) / seconds(b) for _ in range(rounds)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return low, median, high


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes; a GPU is waited for."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


class Bench:
    """One video, its latents and one draw, and the ways of computing a step that are compared."""

    def __init__(self, method: ScoreDistillation, image_model: LatentDiffusion, seed: int):
        require(
            isinstance(method, ScoreDistillation) and "joint_guidance" in method.losses,
            "what is timed is score distillation with joint guidance, the default: leave method=... and loss=... out",
        )
        self.method, self.model, self.image_model = method, method.model, image_model
        self.footage = noise_footage(method.canvas, seed)
        self.Z_ref = self.model.encode(self.footage.frames)
        self.draw = draw_step(seed, "bench", 0, self.Z_ref, method.timesteps)

    def passes(self) -> None:
        """The U-Net passes of one step and nothing else: video branches, and key frames."""
        guidance = self.method.losses["joint_guidance"]
        Z = torch.stack([self.Z_ref, self.Z_ref])
        prompts = (TARGETS[0], SOURCE)
        embeddings = self.model.embed(("", "", *prompts))
        with self.method.attention(self.model, 2):
            self.model.predict(torch.cat([Z, Z]), self.draw.t, embeddings)
        key = self.Z_ref[:, :: guidance.stride]
        guidance.model.predict(torch.stack([key] * 4), self.draw.t, guidance.model.embed(("", "", *prompts)))

    def batched(self, model: LatentDiffusion | None = None) -> None:
        """Both branches and both halves of guidance in one pass, of this model or a variant of it."""
        Z_t = self.model.schedule[self.draw.t].add_noise(torch.stack([self.Z_ref, self.Z_ref]), self.draw.eps)
        guided_noise(model or self.model, Z_t, self.draw.t, (TARGETS[0], SOURCE), 7.5)

    def separate(self) -> None:
        """The same four predictions one after another."""
        Z_t = self.model.schedule[self.draw.t].add_noise(self.Z_ref, self.draw.eps)
        for prompt in ("", "", TARGETS[0], SOURCE):
            self.model.predict(Z_t[None], self.draw.t, self.model.embed((prompt,)))

    def fused(self) -> None:
        """The batched pass under attention fusion."""
        with self.method.attention(self.model, 2):
            self.batched()

    def steps(self, targets: int = 1) -> None:
        """`STEPS` whole steps of the method, for so many targets together: draws, optimizers and curves as they are."""
        self.method(self.footage, SOURCE, [Request(target) for target in TARGETS[:targets]], "bench")

    def steps_without_fusion(self) -> None:
        """The same with the network as it is."""
        replace(self.method, attention=unmodified)(self.footage, SOURCE, [Request(TARGETS[0])], "bench")

    def alone(self, targets: int) -> None:
        """The same edits one after another."""
        for target in TARGETS[:targets]:
            self.method(self.footage, SOURCE, [Request(target)], "bench")

    def all_passes(self) -> None:
        """The U-Net passes of as many steps, and encoding and decoding, which the method does as well."""
        self.model.decode(self.model.encode(self.footage.frames))
        self.model.decode(self.Z_ref)
        for _ in range(STEPS):
            self.passes()

    @torch.no_grad()
    def plain(self) -> None:
        """What one writes with diffusers' own classes: as many steps, each batched as its pipelines are.

        A pass for either branch, guidance's halves in its batch, and the same for the key frames; prompts are encoded
        once. Without fusion, window and mask.
        """
        unet, image_unet = self.model.unet, self.image_model.unet
        stride = self.method.losses["joint_guidance"].stride
        self.model.decode(self.model.encode(self.footage.frames))
        Z = self.Z_ref.clone()
        for _ in range(STEPS):
            t = torch.tensor([self.draw.t], device=Z.device)
            noise, frames = [], []
            for z, prompt in ((Z, TARGETS[0]), (self.Z_ref, SOURCE)):
                z_t = self.scheduler.add_noise(z[None], self.draw.eps[None], t)
                both = torch.cat([z_t, z_t]).to(unet.dtype)
                out = unet(both, t, encoder_hidden_states=self.model.embed(("", prompt))).sample.float()
                empty, told = out.chunk(2)
                noise.append(empty + 7.5 * (told - empty))
                key = z_t[0, :, ::stride].movedim(1, 0)
                both = torch.cat([key, key]).to(image_unet.dtype)
                embeddings = self.image_model.embed(("",) * len(key) + (prompt,) * len(key))
                empty, told = image_unet(both, t, encoder_hidden_states=embeddings).sample.float().chunk(2)
                frames.append(empty + 7.5 * (told - empty))
            gradient = (noise[0] - noise[1])[0]
            gradient[:, ::stride] += (frames[0] - frames[1]).movedim(0, 1)
            Z = Z - 0.1 * gradient
        self.model.decode(Z)

    @property
    def scheduler(self) -> DDPMScheduler:
        """diffusers' own, of this schedule."""
        if not hasattr(self, "_scheduler"):
            abar = torch.tensor(self.model.schedule.alphas, dtype=torch.float64).square()
            betas, first = 1 - abar[1:] / abar[:-1], 1 - abar[:1]
            self._scheduler = DDPMScheduler(trained_betas=torch.cat([first, betas]).clamp(max=0.9999).numpy())
        return self._scheduler


Row: TypeAlias = tuple[Callable[[], object], Callable[[], object]]


def own_rows(bench: Bench, cfg: DictConfig, compiled: bool) -> dict[str, Row]:
    """Score distillation's rows, and those of its networks."""
    rows: dict[str, Row] = {
        "one batched U-Net pass / four separate passes": (bench.batched, bench.separate),
        "attention fusion on / off": (bench.fused, bench.batched),
        "our steps / their U-Net passes alone": (bench.steps, bench.all_passes),
        "our steps, without fusion / a plain loop of diffusers' classes": (bench.steps_without_fusion, bench.plain),
        "our steps, with fusion / the same plain loop, without": (bench.steps, bench.plain),
        "the same steps twice: how far to trust a ratio": (bench.steps, bench.steps),
    }
    for targets in (2, 4):
        together, alone = partial(bench.steps, targets), partial(bench.alone, targets)
        rows[f"{targets} targets together / one after another"] = (together, alone)
    variants: dict[str, dict[str, object]] = {"channels last": {"channels_last": True}}
    if compiled:
        variants["compiled"] = {"compile": "default"}
    for name, arguments in variants.items():
        variant = instantiate(cfg.model, **arguments)
        rows[f"a U-Net pass, {name} / as it is"] = (partial(bench.batched, variant), bench.batched)
    return rows


@one_sentence()
@torch.no_grad()
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for assd.run")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at least two, for there are quartiles")
    parser.add_argument("--only", default="", help="the rows whose names contain this")
    parser.add_argument("--compiled", action="store_true", help="also a compiled U-Net, which takes minutes to compile")
    options = parser.parse_args()
    require(options.rounds >= 2, f"--rounds must be >= 2, for there are quartiles; got {options.rounds}")
    cfg = composed([f"steps.distillation={STEPS}", *options.overrides])
    bench = Bench(instantiate(cfg.method, _convert_="all"), instantiate(cfg.image_model), cfg.seed)
    rows = own_rows(bench, cfg, options.compiled)
    edits, skipped = short_edits(options.overrides, PHASE, SOURCE, TARGETS[0])
    rows |= {f"{name} / its passes in the bare networks": (edit.whole, edit.bare) for name, edit in edits.items()}
    console, table = make_console(), Table("ratio of times", "quartile", "median", "quartile")
    model = bench.model
    console.print(
        f"{cfg.model.path}, {model.canvas}, {model.device}, "
        f"{torch.get_num_threads()} threads, {options.rounds} rounds; {STEPS} steps take {seconds(bench.steps):.1f} s"
    )
    for name, (a, b) in rows.items():
        if options.only in name:
            table.add_row(name, *(f"{value:.2f}" for value in ratio(a, b, options.rounds)))
    console.print(table)
    for name, why in skipped.items():
        console.print(f"{name} is left out: {why}")


if __name__ == "__main__":
    main()
