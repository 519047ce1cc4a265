"""Ratios of things timed side by side in one process: `make bench`.

Each ratio is the median over rounds of A's time over B's, A and B in turn, so that a drifting machine slows both. By
default of the embedded models; `python -m experiments.bench model=modelscope image_model=stable_diffusion_v1_5
model.random=true image_model.random=true` has the published sizes, and anything else that assd.run takes.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import DDPMScheduler
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from assd.config import composed
from assd.distillation import ScoreDistillation
from assd.draw import draw_step
from assd.guidance import guided_noise

ROUNDS = 9
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

    def __init__(self, method: ScoreDistillation, image_model, seed: int):
        self.method, self.model, self.image_model = method, method.model, image_model
        shape = (self.model.num_frames, 3, self.model.height, self.model.width)
        frames = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        self.Z_ref = self.model.encode(frames)
        self.draw = draw_step(seed, "bench", 0, self.Z_ref, method.timesteps)

    def passes(self) -> None:
        """The U-Net passes of one step and nothing else: video branches, and key frames."""
        guidance = self.method.losses["joint_guidance"]
        Z = torch.stack([self.Z_ref, self.Z_ref])
        prompts = (TARGETS[0], SOURCE)
        embeddings = self.model.embed(("", "", *prompts))
        with self.method.attention(self.model.unet, 2):
            self.model.predict(torch.cat([Z, Z]), self.draw.t, embeddings)
        key = self.Z_ref[:, :: guidance.stride].movedim(1, 0)
        n = len(key)
        embeddings = guidance.model.embed(("",) * 2 * n + (TARGETS[0],) * n + (SOURCE,) * n)
        guidance.model.predict(key.repeat(4, 1, 1, 1), self.draw.t, embeddings)

    def batched(self) -> None:
        """Both branches and both halves of guidance in one pass."""
        Z_t = self.model.add_noise(torch.stack([self.Z_ref, self.Z_ref]), self.draw.t, self.draw.eps)
        guided_noise(self.model, Z_t, self.draw.t, (TARGETS[0], SOURCE), 7.5)

    def separate(self) -> None:
        """The same four predictions one after another."""
        Z_t = self.model.add_noise(self.Z_ref, self.draw.t, self.draw.eps)
        for prompt in ("", "", TARGETS[0], SOURCE):
            self.model.predict_noise(Z_t[None], self.draw.t, self.model.embed((prompt,)))

    def fused(self) -> None:
        """The batched pass under attention fusion."""
        with self.method.attention(self.model.unet, 2):
            self.batched()

    def step(self, targets: int = 1) -> None:
        """A whole step of the method for so many targets together."""
        Z = self.Z_ref.expand(targets, *self.Z_ref.shape)
        with self.method.attention(self.model.unet, targets + 1):
            parts = [loss(Z, self.Z_ref, SOURCE, TARGETS[:targets], self.draw) for loss in self.method.losses.values()]
            Z = Z - 0.1 * sum(part.gradient for part in parts)

    def alone(self, targets: int) -> None:
        """The same edits one after another."""
        for _ in range(targets):
            self.step()

    @torch.no_grad()
    def plain(self) -> None:
        """What one writes with diffusers' own classes: the four video predictions, and those of each key frame.

        Batched over guidance as its pipelines are, one branch after the other, prompts encoded once; without fusion,
        window or mask, which make our step dearer.
        """
        unet, image_unet = self.model.unet, self.image_model.unet
        t = torch.tensor([self.draw.t])
        key = range(0, self.Z_ref.shape[1], self.method.losses["joint_guidance"].stride)
        noise, frames = [], []
        for prompt in (TARGETS[0], SOURCE):
            z_t = self.scheduler.add_noise(self.Z_ref[None], self.draw.eps[None], t)
            both = torch.cat([z_t, z_t]).to(unet.dtype)
            out = unet(both, t.to(both.device), encoder_hidden_states=self.model.embed(("", prompt))).sample.float()
            empty, told = out.chunk(2)
            noise.append(empty + 7.5 * (told - empty))
            for i in key:
                both = torch.cat([z_t[:, :, i], z_t[:, :, i]]).to(image_unet.dtype)
                told_embedding = self.image_model.embed(("", prompt))
                out = image_unet(both, t.to(both.device), encoder_hidden_states=told_embedding).sample.float()
                empty, told = out.chunk(2)
                frames.append(empty + 7.5 * (told - empty))
        gradient = noise[0] - noise[1]
        for place, i in enumerate(key):
            gradient[:, :, i] += frames[place] - frames[place + len(key)]

    @property
    def scheduler(self) -> DDPMScheduler:
        """diffusers' own, of this schedule."""
        if not hasattr(self, "_scheduler"):
            betas = 1 - self.model.alphas_cumprod[1:] / self.model.alphas_cumprod[:-1]
            first = 1 - self.model.alphas_cumprod[:1]
            self._scheduler = DDPMScheduler(trained_betas=torch.cat([first, betas]).clamp(max=0.9999).numpy())
        return self._scheduler


@torch.no_grad()
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for assd.run")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    cfg = composed(options.overrides)
    bench = Bench(instantiate(cfg.method, _convert_="all"), instantiate(cfg.image_model), cfg.seed)
    rows = {
        "one batched U-Net pass / four separate passes": (bench.batched, bench.separate),
        "attention fusion on / off": (bench.fused, bench.batched),
        "our step / its U-Net passes alone": (bench.step, bench.passes),
        "our step, with fusion / a plain loop of diffusers' classes, without": (bench.step, bench.plain),
    }
    for targets in (1, 2, 4):
        rows[f"{targets} targets together / one after another"] = (
            lambda targets=targets: bench.step(targets),
            lambda targets=targets: bench.alone(targets),
        )
    model = bench.model
    table = Table("ratio of times", "quartile", "median", "quartile")
    for name, (a, b) in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in ratio(a, b, options.rounds)))
    console = Console()
    console.print(
        f"{cfg.model.path}, {model.num_frames} frames of {model.height} x {model.width}, {model.device}, "
        f"{torch.get_num_threads()} threads, {options.rounds} rounds; a step takes {seconds(bench.step):.2f} s"
    )
    console.print(table)


if __name__ == "__main__":
    main()
