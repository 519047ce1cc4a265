"""Measures the embedded models on clips they never saw: `python -m experiments.check_shapes`.

Exits with 1 when a number misses its bound. Writes a picture of generated clips beside the weights' README.
"""

import argparse
import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from assd.data.video import to_bytes
from assd.diffusion.draw import generator
from assd.models import LatentDiffusion, load, resolve_folder
from assd.runs import pictures
from assd.shapes.corpus import clip
from assd.shapes.judge import judge
from assd.shapes.world import ATTRIBUTES, NUM_FRAMES, Clip, render, visible
from evaluation.metrics.clip import ClipScorer

WEIGHTS = "pkg://assd.shapes/weights"
BOUNDS = {
    "autoencoder PSNR, dB": 34.0,
    "generated: colour": 0.90,
    "generated: shape": 0.80,
    "generated: background": 0.90,
    "generated: motion": 0.90,
    "CLIP: colour": 0.90,
    "CLIP: shape": 0.90,
    "CLIP: background": 0.90,
}
console = Console()


def autoencoder_psnr(model: LatentDiffusion, clips: list[Clip]) -> float:
    """Mean over clips of the PSNR of decode(encode(frames)), pixels in [0, 1]."""
    psnr = []
    for c in clips:
        frames, _ = render(c)
        decoded = model.decode(model.encode(frames))
        psnr.append(peak_signal_noise_ratio((decoded + 1) / 2, (frames + 1) / 2, data_range=1.0).item())
    return sum(psnr) / len(psnr)


def generate(
    model: LatentDiffusion,
    scheduler: DDIMScheduler,
    prompts: list[str],
    shape: tuple[int, ...],
    steps: int,
    w: float,
    seed: int,
) -> Float[Tensor, "b ..."]:
    """Latents sampled from noise with DDIM, guided in what the network predicts: of pure noise eps says nothing."""
    scheduler.set_timesteps(steps)
    z = torch.randn((len(prompts), *shape), generator=generator("generate", seed))
    embeddings = model.embed(("",) * len(prompts) + tuple(prompts))
    for t in scheduler.timesteps.tolist():
        unconditional, conditional = model.predict(torch.cat([z, z]), t, embeddings).chunk(2)
        z = scheduler.step(torch.lerp(unconditional, conditional, w), t, z).prev_sample
    return z


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
    hits: dict[str, list[bool]] = {attribute: [] for attribute in ("colour", "shape", "background")}
    for c in clips:
        frame = render(c)[0][:1]
        for attribute, found in hits.items():
            found.append(clip_prefers(scorer, frame, c, attribute))
    return {f"CLIP: {attribute}": sum(found) / len(found) for attribute, found in hits.items()}


def check_generation(
    model: LatentDiffusion, scheduler: DDIMScheduler, scorer: ClipScorer, clips: list[Clip], steps: int, w: float
) -> tuple[dict[str, float], list[Float[Tensor, "n 3 H W"]]]:
    """Share of generated clips with the right attribute, by pixels and by CLIP, and the lower of the two."""
    by_pixels: dict[str, list[bool]] = {attribute: [] for attribute in ATTRIBUTES}
    by_clip: dict[str, list[bool]] = {attribute: [] for attribute in ("colour", "shape", "background")}
    videos = []
    for i, c in enumerate(track(clips, "generating", console=console)):
        z = generate(model, scheduler, [c.caption], (model.latents.channels, NUM_FRAMES, 16, 16), steps, w, seed=i)
        frames = model.decode(z[0])
        videos.append(frames)
        seen = judge(frames)
        for attribute, found in by_pixels.items():
            found.append(seen[attribute] == getattr(c, attribute))
        for attribute, found in by_clip.items():
            found.append(clip_prefers(scorer, frames, c, attribute))
    numbers = {}
    for attribute, found in by_pixels.items():
        pixels = sum(found) / len(found)
        numbers[f"generated: {attribute}, by pixels"] = pixels
        numbers[f"generated: {attribute}"] = pixels
        if attribute in by_clip:
            numbers[f"generated: {attribute}, by CLIP"] = sum(by_clip[attribute]) / len(clips)
            numbers[f"generated: {attribute}"] = min(pixels, numbers[f"generated: {attribute}, by CLIP"])
    return numbers, videos


def samples_picture(
    videos: list[Float[Tensor, "n 3 H W"]], columns: int = 4, rows: int = 8
) -> Float[Tensor, "b 3 H W"]:
    """Every other frame of the first clips, `columns` frames a clip."""
    return torch.cat([frames[:: len(frames) // columns] for frames in videos[:rows]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--clips", type=int, default=64, help="how many are generated")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps")
    parser.add_argument("--guidance-scale", type=float, default=2.5, help="more distorts the shapes")
    parser.add_argument("--picture", type=Path, default=Path("outputs/shapes-samples.png"))
    options = parser.parse_args()
    size = {"height": 64, "width": 64, "device": "cpu"}
    model = load(options.weights, unet="video_unet", text_encoder="video_text_encoder", num_frames=8, **size)
    scheduler = DDIMScheduler.from_pretrained(resolve_folder(options.weights), subfolder="scheduler")
    clips = [clip("validation", index) for index in range(options.clips)]

    numbers = {"autoencoder PSNR, dB": autoencoder_psnr(model, clips)}
    scorer = ClipScorer(f"local-dir:{options.weights}/clip", device="cpu")
    numbers |= check_clip(scorer, [clip("validation", index) for index in range(256)])
    generated, videos = check_generation(model, scheduler, scorer, clips, options.steps, options.guidance_scale)
    numbers |= generated

    table = Table("measured on held-out clips", "value", "bound")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.3f}", f">= {BOUNDS[name]}" if name in BOUNDS else "")
    console.print(table)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    sheet = to_bytes(samples_picture(videos))
    pictures.save(pictures.grid(sheet.repeat_interleave(2, 1).repeat_interleave(2, 2), columns=8), options.picture)
    console.print(f"samples in {options.picture}")
    missed = [name for name, bound in BOUNDS.items() if numbers[name] < bound]
    sys.exit(f"below the bound: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
