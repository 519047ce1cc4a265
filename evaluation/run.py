"""Scores finished runs: `python -m evaluation.run RUN_DIR...` writes scores.csv into each and prints the means.

One row per pair and metric. The edited video is scored beside two that need no editor: the unedited source and its
reconstruction by the autoencoder. A pair that failed is a row with its reason.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from assd.config import register
from assd.data import Footage, TextVideoPair
from assd.errors import InputError
from assd.video import read_video, to_pixels
from evaluation.clip import ClipScorer

VIDEOS = ("source", "reconstruction", "edited")
console = Console()


@dataclass(frozen=True)
class Scored:
    """One video under judgement, and what is known of its pair; pixels in [-1, 1]."""

    frames: Float[Tensor, "n 3 H W"]
    reconstruction: Float[Tensor, "n 3 H W"]
    pair: TextVideoPair
    footage: Footage


def clip_text(scorer: ClipScorer, video: Scored) -> float:
    """Mean over frames of the cosine between frame and target prompt."""
    return (scorer.embed_frames(video.frames) @ scorer.embed_prompts([video.pair.prompts.target]).T).mean().item()


def clip_prefers_target(scorer: ClipScorer, video: Scored) -> float:
    """1 where the mean cosine to the target prompt exceeds the one to the source prompt, else 0."""
    source, target = (scorer.embed_frames(video.frames) @ scorer.embed_prompts([*video.pair.prompts]).T).mean(0)
    return float(target > source)


def clip_consistency(scorer: ClipScorer, video: Scored) -> float:
    """Mean cosine between consecutive frames."""
    frames = scorer.embed_frames(video.frames)
    return (frames[1:] * frames[:-1]).sum(-1).mean().item()


def preservation(video: Scored) -> float | None:
    """PSNR in dB against the source's reconstruction, over the pixels that the true edit leaves alone, if any."""
    if video.footage.truth is None:
        return None
    kept = (video.footage.truth == video.footage.frames).all(1, keepdim=True).expand_as(video.frames)
    if not kept.any():
        return None
    return masked_psnr(video.frames, video.reconstruction, kept)


def truth_psnr(video: Scored) -> float | None:
    """PSNR in dB against the true edit, over all pixels."""
    if video.footage.truth is None:
        return None
    return masked_psnr(video.frames, video.footage.truth, torch.ones_like(video.frames, dtype=torch.bool))


def masked_psnr(a: Tensor, b: Tensor, kept: Tensor) -> float:
    """PSNR over some pixels, of videos in [-1, 1] brought to [0, 1]."""
    return peak_signal_noise_ratio((a[kept] + 1) / 2, (b[kept] + 1) / 2, data_range=1.0).item()


def metrics(scorer: ClipScorer) -> dict[str, Callable[[Scored], float | None]]:
    """By full name: what is measured, with which model, on which scale."""
    return {
        "CLIP text (embedded CLIP, cosine)": functools.partial(clip_text, scorer),
        "prefers target (embedded CLIP, share)": functools.partial(clip_prefers_target, scorer),
        "CLIP consistency (embedded CLIP, consecutive, cosine)": functools.partial(clip_consistency, scorer),
        "preservation (PSNR to reconstruction where the true edit changes nothing, dB)": preservation,
        "true edit (PSNR, dB)": truth_psnr,
    }


def score_run(run: Path, scorer: ClipScorer) -> pd.DataFrame:
    """The scores of a run directory: columns pair, video, metric, value, reason."""
    config = run / "config.yaml"
    if not config.is_file():
        raise InputError(f"{run} is no run directory: it has no config.yaml. Run directories lie in outputs/")
    cfg = OmegaConf.load(config)
    pairs = instantiate(cfg.dataset, _convert_="all")
    return pd.DataFrame([row for pair in pairs for row in score_pair(run, pair, scorer)])


def score_pair(run: Path, pair: TextVideoPair, scorer: ClipScorer) -> Iterator[dict]:
    """The rows of one pair."""
    folder = run / "edits" / pair.id
    if not (folder / "edited.mp4").is_file():
        yield {"pair": pair.id, "video": "edited", "metric": None, "value": None, "reason": "not finished"}
        return
    footage = pair.read()
    count, _, height, width = footage.frames.shape
    videos = {name: to_pixels(read_video(folder / f"{name}.mp4", count).frames, height, width) for name in VIDEOS}
    for name, frames in videos.items():
        scored = Scored(frames, videos["reconstruction"], pair, footage)
        for metric, measure in metrics(scorer).items():
            value = measure(scored)
            if value is not None:
                yield {"pair": pair.id, "video": name, "metric": metric, "value": value, "reason": ""}


def print_means(run: Path, scores: pd.DataFrame) -> None:
    """Mean over pairs, with their number."""
    table = Table("metric", *VIDEOS, "pairs", title=run.name, title_justify="left")
    means = scores.dropna(subset=["metric"]).pivot_table(index="metric", columns="video", values="value", sort=False)
    counts = scores[scores.video == "edited"].groupby("metric").value.count()
    for metric, row in means.iterrows():
        table.add_row(str(metric), *(f"{row[video]:.3f}" for video in VIDEOS), str(counts[metric]))
    console.print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    options = parser.parse_args()
    register()
    scorer = ClipScorer()
    try:
        for run in options.runs:
            scores = score_run(run, scorer)
            scores.to_csv(run / "scores.csv", index=False)
            print_means(run, scores)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
