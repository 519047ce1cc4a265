"""Proves that the published models fit and run, without their weights: `python -m assd.models.check`.

Builds a text-to-video model and Stable Diffusion at full size with random weights, edits a video of noise for some
steps of the full method, and prints parameter counts, shapes, arithmetic, time and peak memory. Takes overrides:
`model=zeroscope`.
"""

import argparse
import itertools
import resource
import sys
import time

import torch
from hydra.utils import instantiate
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from assd.config import composed
from assd.distillation import Request, ScoreDistillation
from assd.errors import one_sentence
from assd.models.latent_diffusion import LatentDiffusion

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


def peak_memory(device: torch.device) -> str:
    """The process's own on the CPU; what torch allocated at most on a GPU."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of {device}"
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return f"{kilobytes / 2**20:.1f} GiB of host memory"


def teraflops(unet: torch.nn.Module, z_shape: tuple[int, ...], tokens: int) -> float:
    """The arithmetic of one pass in TFLOP, by torch's counter on tensors of that shape that hold nothing."""
    with torch.device("meta"):
        meta_unet = type(unet).from_config(unet.config)
        z, t = torch.empty(z_shape), torch.empty(1)
        embeddings = torch.empty(z_shape[0], tokens, unet.config.cross_attention_dim)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta_unet(z, t, encoder_hidden_states=embeddings)
    return counter.get_total_flops() / 1e12


def arithmetic(method: ScoreDistillation, Z: Float[Tensor, "c n h w"]) -> tuple[float, float]:
    """TFLOP of the video U-Net's pass and of the image U-Net's in one step: four branches of video, of key frames."""
    guidance = method.losses["joint_guidance"]
    tokens = method.model.tokenizer.model_max_length
    key = Z[:, :: guidance.stride].movedim(1, 0)
    video = teraflops(method.model.unet, (4, *Z.shape), tokens)
    return video, teraflops(guidance.model.unet, (4 * len(key), *key.shape[1:]), tokens)


def edit_noise(method: ScoreDistillation, seed: int) -> tuple[list[float], Float[Tensor, "c n h w"], bool]:
    """Seconds of each step, the device waited for; the edited Z, and whether it moved and stayed finite."""
    model = method.model
    shape = (model.num_frames, 3, model.height, model.width)
    frames = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    times: list[float] = []

    def stop_watch(step: int) -> None:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        times.append(time.perf_counter())

    model.embed(("", "", TARGET, SOURCE))  # remembered, as in any step but the first
    Z_ref = model.encode(frames)
    stop_watch(0)
    (edit,) = method(frames, SOURCE, [Request(TARGET)], "noise", advance=stop_watch)
    console.print(f"frames {tuple(frames.shape)}, latent {tuple(edit.Z.shape)}, edited {tuple(edit.frames.shape)}")
    moved = bool(edit.Z.isfinite().all()) and not torch.equal(edit.Z, Z_ref)
    return [after - before for before, after in itertools.pairwise(times)], edit.Z, moved


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for assd.run, such as model=zeroscope model.num_frames=16")
    overrides = [given for given in parser.parse_args().overrides if given != RANDOM[0]]
    precision = "float16" if torch.cuda.is_available() and "device=cpu" not in overrides else "float32"
    defaults = (f"model.dtype={precision}", f"image_model.dtype={precision}", "model.num_frames=8",
                "method.num_steps=2", "key_frame_stride=2")  # fmt: skip
    cfg = composed([*RANDOM, *defaults, *overrides])

    started = time.perf_counter()
    method: ScoreDistillation = instantiate(cfg.method, _convert_="all")
    image_model: LatentDiffusion = instantiate(cfg.image_model)
    console.print(f"built in {time.perf_counter() - started:.0f} s")
    console.print(describe({cfg.model.path: method.model, cfg.image_model.path: image_model}))
    seconds, Z, moved = edit_noise(method, cfg.seed)
    steps = ", ".join(f"{s:.2f}" for s in seconds)
    console.print(f"{len(seconds)} steps with fusion and joint guidance: {steps} s (the first with encoding)")
    video, image = arithmetic(method, Z)
    console.print(
        f"arithmetic of a step: {video:.1f} TFLOP in the video U-Net and {image:.1f} in the image U-Net; "
        f"{(video + image) / seconds[-1]:.2f} TFLOP/s in the last step"
    )
    console.print(f"peak memory: {peak_memory(method.model.device)}")
    sys.exit(0 if moved else "the latent did not move, or holds NaN or Inf")


if __name__ == "__main__":
    main()
