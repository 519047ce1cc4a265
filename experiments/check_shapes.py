"""Measures the embedded models on clips they never saw: `python -m experiments.check_shapes`.

Generated frames and clips are made at the guidance scales that edits use. Exits with 1 when a number misses its bound.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio

from assd.console import console as make_console
from assd.data.video import to_bytes
from assd.diffusion.draw import generator
from assd.diffusion.guidance import guided_prediction
from assd.diffusion.inversion import DDIM, downwards
from assd.diffusion.model import Model
from assd.errors import one_sentence, require
from assd.models import LatentDiffusion, load
from assd.models.control_net import ControlNet, load_control_net
from assd.runs import pictures
from assd.shapes.corpus import clip
from assd.shapes.judge import judge
from assd.shapes.stages import edges
from assd.shapes.world import ATTRIBUTES, SIZE, Clip, render, visible
from evaluation.metrics.clip import ClipScorer

WEIGHTS = "pkg://assd.shapes/weights"
LATENT_SIZE = 16
BATCH = 32  # frames generated together
IN_A_FRAME = ("colour", "shape", "background")  # the attributes that a single frame shows
BOUNDS = {
    "autoencoder PSNR, dB": 34.0,
    **{f"CLIP: {attribute}": 0.90 for attribute in IN_A_FRAME},
    **{f"image model: {attribute}": 0.95 for attribute in IN_A_FRAME},
    "video model: colour": 0.90,
    "video model: shape": 0.80,
    "video model: background": 0.90,
    "video model: motion": 0.90,
    **{f"ControlNet: {attribute}": 0.90 for attribute in IN_A_FRAME},
    "ControlNet: edge F1": 0.80,
}
console = make_console()


class Judged(NamedTuple):
    """The share of generated videos with the right attribute, by pixels and, where a frame shows it, by CLIP."""

    by_pixels: float
    by_clip: float | None = None

    @property
    def stricter(self) -> float:
        """The lower of the two."""
        return self.by_pixels if self.by_clip is None else min(self)


def autoencoder_psnr(model: LatentDiffusion, clips: list[Clip]) -> float:
    """Mean over clips of the PSNR of decode(encode(frames)), pixels in [0, 1]."""
    psnr = []
    for c in clips:
        frames = render(c).frames
        decoded = model.decode(model.encode(frames))
        psnr.append(peak_signal_noise_ratio((decoded + 1) / 2, (frames + 1) / 2, data_range=1.0).item())
    return sum(psnr) / len(psnr)


def alternatives(c: Clip, attribute: str) -> list[Clip]:
    """The clip under every value of one attribute, itself among them, where the object can still be seen."""
    variants = [c.edited(**{attribute: value}) for value in ATTRIBUTES[attribute]]
    return [v for v in variants if v == c or visible(v.colour, v.background)]


def clip_prefers(scorer: ClipScorer, frames: Float[Tensor, "n 3 H W"], c: Clip, attribute: str) -> bool:
    """Whether CLIP ranks the clip's own caption above all that differ in one attribute, in the mean over frames."""
    variants = alternatives(c, attribute)
    scores = scorer.embed_frames(frames).mean(0) @ scorer.embed_prompts([v.caption for v in variants]).T
    return variants[int(scores.argmax())] == c


def check_clip(scorer: ClipScorer, clips: list[Clip]) -> dict[str, float]:
    """Top-1 on rendered clips, per attribute that a single frame shows."""
    frames = [render(c).frames[:1] for c in clips]
    return {
        f"CLIP: {attribute}": share([clip_prefers(scorer, f, c, attribute) for f, c in zip(frames, clips)])
        for attribute in IN_A_FRAME
    }


def share(found: list[bool]) -> float:
    """Of the found ones among all."""
    return sum(found) / len(found)


@torch.no_grad()
def generate(
    model: Model, prompts: list[str], num_frames: int, steps: int, w: float, seed: int
) -> Float[Tensor, "b n 3 H W"]:
    """Videos sampled from noise with DDIM, guided in what the network predicts: of pure noise eps says nothing."""
    ddim = DDIM(model.schedule, model.prediction)
    shape = (len(prompts), model.latents.channels, num_frames, LATENT_SIZE, LATENT_SIZE)
    z = torch.randn(shape, generator=generator("generate", seed))
    for t, to in downwards(model.schedule.timesteps(steps)):
        z = ddim.sampling_step(partial(guided_prediction, model, prompts=prompts, w=w), z, t, to)
    return torch.stack([model.decode(latent) for latent in z])


def edge_f1(seen: Bool[Tensor, "*b H W"], given: Bool[Tensor, "*b H W"], tolerance: int = 1) -> float:
    """F1 of edge pixels: precision and recall count a pixel within `tolerance` pixels, diagonals included, as met."""

    def near(edge: Tensor) -> Tensor:
        return F.max_pool2d(edge.float()[:, None], 2 * tolerance + 1, 1, tolerance)[:, 0] > 0

    precision = (seen & near(given)).sum() / seen.sum().clamp(min=1)
    recall = (given & near(seen)).sum() / given.sum().clamp(min=1)
    return (2 * precision * recall / (precision + recall).clamp(min=1e-9)).item()


def canny(frames: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
    """Edges of pixels in [-1, 1], as the ControlNet takes them."""
    return edges(rearrange(to_bytes(frames), "b H W c -> b c H W"))


def accuracy(scorer: ClipScorer, videos: list[Float[Tensor, "n 3 H W"]], clips: list[Clip]) -> dict[str, Judged]:
    """How often each attribute is the caption's; of single frames, those that a frame shows."""
    attributes = IN_A_FRAME if len(videos[0]) == 1 else tuple(ATTRIBUTES)
    seen = [judge(frames) for frames in videos]
    judged = {}
    for attribute in attributes:
        pixels = share([s[attribute] == getattr(c, attribute) for s, c in zip(seen, clips)])
        if attribute in IN_A_FRAME:
            by_clip = share([clip_prefers(scorer, v, c, attribute) for v, c in zip(videos, clips)])
            judged[attribute] = Judged(pixels, by_clip)
        else:
            judged[attribute] = Judged(pixels)
    return judged


def generated(
    model: LatentDiffusion, clips: list[Clip], num_frames: int, steps: int, w: float
) -> list[Float[Tensor, "n 3 H W"]]:
    """A video of each clip's caption."""
    size, videos = BATCH // num_frames, []
    for i in track(range(0, len(clips), size), "generating", console=console):
        prompts = [c.caption for c in clips[i : i + size]]
        videos += list(generate(model, prompts, num_frames, steps, w, seed=i))
    return videos


def check_control_net(
    model: LatentDiffusion, control_net: ControlNet, clips: list[Clip], steps: int, w: float
) -> tuple[list[Float[Tensor, "1 3 H W"]], float]:
    """A frame of each caption, given the edges of the clip's own first frame, and their edges' F1."""
    frames, scores = [], []
    for i in track(range(0, len(clips), BATCH), "generating from edges", console=console):
        chosen = clips[i : i + BATCH]
        given = canny(torch.cat([render(c).frames[:1] for c in chosen]))
        prompts = [c.caption for c in chosen]
        with control_net.beside(model.unet, given):
            made = generate(model, prompts, 1, steps, w, seed=i)[:, 0]
        scores += [edge_f1(s > 0, g > 0) for s, g in zip(canny(made)[:, :1], given[:, :1])]
        frames += list(made[:, None])
    return frames, sum(scores) / len(scores)


def samples_picture(videos: list[Float[Tensor, "n 3 H W"]], shown: int, columns: int, path: Path) -> None:
    """Frames of the first videos, twice their size, `shown` of each."""
    sheet = to_bytes(torch.cat([frames[:: max(1, len(frames) // shown)] for frames in videos]))
    pictures.save(pictures.grid(sheet.repeat_interleave(2, 1).repeat_interleave(2, 2), columns=columns), path)


def report(numbers: dict[str, float], judged: dict[str, dict[str, Judged]]) -> None:
    """Prints every number, the models' accuracies side by side."""
    table = Table("generated: share with the right", *(f"{model}\npixels / CLIP" for model in judged))
    for attribute in ATTRIBUTES:
        cells = [told(of_model.get(attribute)) for of_model in judged.values()]
        table.add_row(attribute, *cells)
    console.print(table)
    table = Table("measured on held-out clips", "value", "bound")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.3f}", f">= {BOUNDS[name]}" if name in BOUNDS else "")
    console.print(table)


def told(judged: Judged | None) -> str:
    """`0.98 / 0.99`."""
    return "" if judged is None else " / ".join(f"{value:.3f}" for value in judged if value is not None)


class Check:
    """The models of one folder of weights, each measured by one method; `numbers` holds what they found."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.numbers, self.judged = options, {}, {}
        self.image = load(options.weights, unet="image_unet", device="cpu")
        self.scorer = ClipScorer(f"local-dir:{options.weights}/clip", device="cpu")

    def clips(self, size: int) -> list[Clip]:
        """Validation clips: no model has seen their captions' kin among the pairs."""
        return [clip("validation", index) for index in range(size)]

    def note(self, name: str, videos: list[Tensor], clips: list[Clip]) -> None:
        """The accuracy of one model's videos."""
        self.judged[name] = accuracy(self.scorer, videos, clips)
        self.numbers |= {f"{name}: {attribute}": judged.stricter for attribute, judged in self.judged[name].items()}

    def autoencoder(self) -> None:
        """Its PSNR, on 64 clips."""
        self.numbers["autoencoder PSNR, dB"] = autoencoder_psnr(self.image, self.clips(64))

    def clip(self) -> None:
        """CLIP, on 256 rendered frames."""
        self.numbers |= check_clip(self.scorer, self.clips(256))

    def image_model(self) -> None:
        """Frames of the image model."""
        clips = self.clips(self.options.frames)
        videos = generated(self.image, clips, 1, self.options.steps, self.options.image_guidance_scale)
        self.note("image model", videos, clips)
        samples_picture(videos[:32], 1, 8, self.options.pictures / "image-model.png")

    def video_model(self) -> None:
        """Clips of the video model."""
        parts = {"unet": "video_unet", "text_encoder": "video_text_encoder"}
        model = load(self.options.weights, **parts, num_frames=8, height=SIZE, width=SIZE, device="cpu")
        clips = self.clips(self.options.clips)
        videos = generated(model, clips, 8, self.options.steps, self.options.guidance_scale)
        self.note("video model", videos, clips)
        samples_picture(videos[:8], 4, 8, self.options.pictures / "video-model.png")

    def control_net(self) -> None:
        """Frames of the image model under the ControlNet."""
        clips, scale = self.clips(self.options.clips), self.options.image_guidance_scale
        control_net = load_control_net(f"{self.options.weights}/control_net", device="cpu")
        frames, f1 = check_control_net(self.image, control_net, clips, self.options.steps, scale)
        self.note("ControlNet", frames, clips)
        self.numbers["ControlNet: edge F1"] = f1
        samples_picture(frames[:32], 1, 8, self.options.pictures / "control-net.png")


CHECKS = ("autoencoder", "clip", "image_model", "video_model", "control_net")


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; all by default")
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--frames", type=int, default=256, help="how many the image model generates")
    parser.add_argument("--clips", type=int, default=64, help="how many the video model generates, and the ControlNet")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps")
    parser.add_argument("--image-guidance-scale", type=float, default=2.0)
    parser.add_argument("--guidance-scale", type=float, default=2.0, help="the video model's")
    parser.add_argument("--pictures", type=Path, default=Path("outputs/shapes-samples"))
    options = parser.parse_args()
    for name in options.checks:
        require(name in CHECKS, f"CHECK must be one of {', '.join(CHECKS)}; got {name!r}")
    options.pictures.mkdir(parents=True, exist_ok=True)
    check = Check(options)
    for name in options.checks or CHECKS:
        getattr(check, name)()
    report(check.numbers, check.judged)
    console.print(f"samples in {options.pictures}")
    missed = [name for name, bound in BOUNDS.items() if name in check.numbers and check.numbers[name] < bound]
    sys.exit(f"below the bound: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
