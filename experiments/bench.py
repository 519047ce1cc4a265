"""Ratios of things timed side by side in one process: `make bench`.

Each ratio is the median over rounds of A's time over B's, A and B in turn, so that a drifting machine slows both.
"""

import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from assd.config import CONFIG_PATH, register
from assd.distillation import ScoreDistillation
from assd.draw import draw_step
from assd.guidance import guided_noise

ROUNDS = 15


def ratio(a: Callable[[], object], b: Callable[[], object]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of time(a) / time(b) over rounds, after one of each to warm up."""
    a()
    b()
    ratios = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        a()
        middle = time.perf_counter()
        b()
        ratios.append((middle - started) / (time.perf_counter() - middle))
    low, median, high = statistics.quantiles(ratios, n=4)
    return low, median, high


@torch.no_grad()
def main() -> None:
    """Prints the table."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=CONFIG_PATH):
        cfg = compose("config")
    method: ScoreDistillation = instantiate(cfg.method, _convert_="all")
    pair = instantiate(cfg.dataset, limit=1)[0]
    model, attention, w = method.model, method.attention, 7.5
    Z = model.encode(pair.read().frames)
    draw = draw_step(0, pair.id, 0, Z, method.timesteps)
    Z_t = model.add_noise(torch.stack([Z, Z]), draw.t, draw.eps)
    target, source = pair.prompts.target, pair.prompts.source
    embeddings = [model.embed((prompt,)) for prompt in ("", "", target, source)]

    def batched() -> None:
        guided_noise(model, Z_t, draw.t, (target, source), w)

    def separate() -> None:
        for z_t, embedding in zip((*Z_t, *Z_t), embeddings):
            model.predict_noise(z_t[None], draw.t, embedding)

    def fused() -> None:
        with attention(model.unet):
            batched()

    def step() -> None:
        with attention(model.unet):
            for loss in method.losses.values():
                loss(Z, Z, pair.prompts, draw)

    def video_step() -> None:
        with attention(model.unet):
            method.losses["video"](Z, Z, pair.prompts, draw)

    rows = {
        "one batched U-Net pass / four separate passes": (batched, separate),
        "attention fusion on / off": (fused, batched),
        "step with joint guidance / without": (step, video_step),
    }
    table = Table("ratio of times, embedded models", "quartile", "median", "quartile")
    for name, (a, b) in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in ratio(a, b)))
    console = Console()
    console.print(f"{torch.get_num_threads()} threads, {model.device}, {ROUNDS} rounds")
    console.print(table)


if __name__ == "__main__":
    main()
