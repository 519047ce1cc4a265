"""Trains the embedded models: `python -m assd.shapes.train`.

Six stages, each from the weights of those before it: autoencoder, decoder, text_to_image, motion, text_to_video, clip.
A stage is checkpointed every minute and continues where it stopped; batch and noise of a step are drawn from (seed,
stage, step), so an interrupted training ends in the same weights. The progress bar says how long each takes.
"""

import argparse
import copy
import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from einops import rearrange
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from assd.diffusion.draw import generator
from assd.shapes import networks
from assd.shapes.corpus import Corpus, directed_clips, to_floats
from assd.shapes.world import ATTRIBUTES, MOTIONS, Clip

WEIGHTS = Path(__file__).with_name("weights")
SEED = 0
CLIPS = 6000
EMPTY_CAPTIONS = 0.1  # share of captions replaced by the empty prompt, for classifier-free guidance
EMA_DECAY = 0.998
PURE_NOISE = 1000  # as an exponent of t's density: every t is 99 % of the last or more
READING_WEIGHT = 0.1  # of the text encoder's own task beside the diffusion loss
IGNORED = -100  # cross-entropy's mark of an unknown class
KL_WEIGHT = 3e-4  # on the mean over a latent's elements
CHECKPOINT_SECONDS = 60

console = Console()


@dataclass
class Stage:
    """What one training loop needs: the modules that learn, and the loss of one step's random generator and number."""

    name: str
    modules: nn.ModuleDict
    loss: Callable[[torch.Generator, int], Tensor]
    steps: int
    lr: float


def fit(stage: Stage, work: Path, device: torch.device) -> None:
    """AdamW under a one-cycle rate, an exponential average of the weights, checkpoints in `work`.

    Leaves the averaged weights in `stage.modules`.
    """
    if not stage.steps:
        stage.modules.eval().requires_grad_(False)
        return
    parameters = list(stage.modules.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(parameters, lr=stage.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.lr, total_steps=stage.steps, pct_start=0.05)
    average = EMAModel(parameters, decay=EMA_DECAY, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    state = {"modules": stage.modules, "optimizer": optimizer, "schedule": schedule, "average": average}

    checkpoint = work / f"{stage.name}.pt"
    first = load_checkpoint(checkpoint, state) if checkpoint.exists() else 0
    saved = time.monotonic()
    log = (work / f"{stage.name}.jsonl").open("a")
    losses: list[float] = []
    for step in progress(stage, first):
        with torch.autocast(device.type, torch.bfloat16):
            loss = stage.loss(generator(SEED, stage.name, step), step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        average.step(parameters)
        losses.append(loss.item())
        done = step + 1
        if done % 50 == 0:
            print(json.dumps({"step": done, "loss": round(sum(losses) / len(losses), 5)}), file=log, flush=True)
            losses.clear()
        if done == stage.steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_checkpoint(checkpoint, state, done)
            saved = time.monotonic()
    log.close()
    average.copy_to(parameters)
    stage.modules.eval().requires_grad_(False)


def load_checkpoint(path: Path, state: dict) -> int:
    """Restores every entry of `state`; returns the number of steps done."""
    stored = torch.load(path, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(stored[name])
    return stored["step"]


def save_checkpoint(path: Path, state: dict, step: int) -> None:
    """Written aside and renamed: a kill never leaves half a checkpoint."""
    partial = path.with_suffix(".partial")
    torch.save({name: part.state_dict() for name, part in state.items()} | {"step": step}, partial)
    partial.replace(path)


def progress(stage: Stage, first: int) -> Iterator[int]:
    """Step numbers under a progress bar with the time that remains."""
    columns = (TextColumn(stage.name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(stage.name, total=stage.steps, completed=first)
        for step in range(first, stage.steps):
            yield step
            bar.advance(task)


def gather(corpus: Tensor, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """`size` entries of a stacked corpus, drawn with replacement, and their indices."""
    indices = torch.randint(len(corpus), (size,), generator=draw)
    return corpus[indices], indices


def autoencoder_stage(vae: nn.Module, corpus: Corpus, device: torch.device, steps: int, batch: int = 16) -> Stage:
    """Absolute plus squared error, five times heavier on the object, and a little KL to keep latents compact."""
    frames, masks = corpus.frames.flatten(0, 1), corpus.masks.flatten(0, 1)

    def loss(draw: torch.Generator, step: int) -> Tensor:
        pixels, indices = gather(frames, batch, draw)
        pixels = to_floats(pixels).to(device)
        weight = 1 + 4 * masks[indices][:, None].to(device)
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw).to(device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        error = decoded - pixels
        return (weight * (error.abs() + error.square())).mean() + KL_WEIGHT * posterior.kl().mean() / posterior.mean[
            0
        ].numel()

    return Stage("autoencoder", nn.ModuleDict({"vae": vae}), loss, steps, lr=4e-3)


def decoder_stage(vae: nn.Module, corpus: Corpus, device: torch.device, steps: int, batch: int = 16) -> Stage:
    """The decoder alone, on squared error of what the encoder really gives: latents stay, reconstructions sharpen."""
    frames = corpus.frames.flatten(0, 1)

    def loss(draw: torch.Generator, step: int) -> Tensor:
        pixels, _ = gather(frames, batch, draw)
        pixels = to_floats(pixels).to(device)
        with torch.no_grad():
            z = vae.encode(pixels).latent_dist.mean
        return F.mse_loss(vae.decode(z).sample.float(), pixels)

    modules = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    return Stage("decoder", nn.ModuleDict(modules), loss, steps, lr=2e-3)


@torch.inference_mode()
def encode(vae: nn.Module, corpus: Corpus, device: torch.device, chunk: int = 64) -> Tensor:
    """Scaled latents (clips, n, c, h, w) of a corpus, after setting the autoencoder's scaling factor to 1 / std."""
    frames = corpus.frames.flatten(0, 1)
    latents = [vae.encode(to_floats(part).to(device)).latent_dist.mean.cpu() for part in frames.split(chunk)]
    stacked = rearrange(torch.cat(latents), "(b n) c h w -> b n c h w", b=len(corpus.frames))
    vae.register_to_config(scaling_factor=round(1 / stacked.std().item(), 4))
    return stacked * vae.config.scaling_factor


class Reader(nn.Module):
    """Reads a caption's four attributes off the mean of its embeddings, by one direction of unit length a value.

    A text encoder trained by the diffusion loss alone makes words alike that the loss hardly needs, such as the
    direction of motion; this keeps them as far apart as colours are.
    """

    def __init__(self):
        super().__init__()
        self.directions = nn.ParameterDict(
            {name: torch.randn(len(values), networks.TEXT_WIDTH) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, embeddings: Tensor, attributes: dict[str, Tensor]) -> Tensor:
        """The mean cross-entropy. embeddings (b, l, d); attributes: each one's values as indices (b,), -100 unknown."""
        read = embeddings.mean(1).float()
        losses = [
            F.cross_entropy(read @ F.normalize(of_values, dim=-1).T, attributes[name], reduction="sum")
            for name, of_values in self.directions.items()
        ]
        return torch.stack(losses).mean() / len(read)


def diffusion_stage(
    name: str,
    unet: nn.Module,
    text_encoder: nn.Module,
    latents: Tensor,
    clips: list[Clip],
    device: torch.device,
    *,
    steps: int,
    batch: int,
    lr: float,
    high_noise: int,
    group: int = 1,
    doubling: int | None = None,
) -> Stage:
    """Velocity prediction (Salimans and Ho 2022): || v - v_theta(Z_t, t, y) ||^2, some captions left empty.

    v = sqrt(abar_t) eps - sqrt(1 - abar_t) Z. It is Eq. 2 with the weight 1 / abar_t: what a caption decides is decided
    at high noise, which plain noise prediction hardly weighs. Timesteps are drawn with a density proportional to
    t^high_noise, uniformly for 0. Every `group` neighbours among the latents are drawn together, under one t and one
    eps, so that the loss tells them apart by what differs between them. The first step knows one group, and `doubling`
    steps later there are twice as many.
    """
    tokenizer, scheduler, reader = networks.tokenizer(), networks.scheduler(), Reader().to(device)
    if device.type == "cpu":  # the backward pass of the fused attention kernel is slow there
        unet.set_attn_processor(AttnProcessor())
    captions = [*(clip.caption for clip in clips), ""]
    tokens = tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
    attributes = {
        name: torch.tensor([*(values.index(getattr(clip, name)) for clip in clips), IGNORED])
        for name, values in ATTRIBUTES.items()
    }

    def loss(draw: torch.Generator, step: int) -> Tensor:
        groups = len(latents) // group
        known = groups if doubling is None else min(groups, 2 ** (step // doubling))
        first = group * torch.randint(known, (batch // group,), generator=draw)
        indices = (first[:, None] + torch.arange(group)).flatten()
        z = latents[indices].to(device)
        eps = torch.randn((len(first), *z.shape[1:]), generator=draw).repeat_interleave(group, 0).to(device)
        high = torch.rand(len(first), generator=draw) ** (1 / (1 + high_noise))
        t = (len(scheduler) * high).long().repeat_interleave(group).to(device)
        empty = (torch.rand(len(first), generator=draw) < EMPTY_CAPTIONS).repeat_interleave(group)
        caption = torch.where(empty, len(clips), indices % len(clips))
        embeddings = text_encoder(tokens[caption].to(device)).last_hidden_state
        v = unet(scheduler.add_noise(z, eps, t), t, embeddings).sample.float()
        told = {name: of_clips[caption].to(device) for name, of_clips in attributes.items()}
        return F.mse_loss(v, scheduler.get_velocity(z, eps, t)) + READING_WEIGHT * reader(embeddings, told)

    modules = {"unet": unet, "text_encoder": text_encoder, "reader": reader}
    return Stage(name, nn.ModuleDict(modules), loss, steps, lr)


def clip_stage(
    clip: nn.Module, corpus: Corpus, vae: nn.Module, device: torch.device, steps: int, batch: int = 64
) -> Stage:
    """The CLIP loss on single frames, half of them through the autoencoder, as edited videos will be."""
    tokenizer, contrast = networks.tokenizer(), open_clip.ClipLoss()
    tokens = tokenizer([c.caption for c in corpus.clips], padding="max_length", return_tensors="pt").input_ids

    def loss(draw: torch.Generator, step: int) -> Tensor:
        clips, indices = gather(corpus.frames, batch, draw)
        frame = torch.randint(clips.shape[1], (batch,), generator=draw)
        pixels = to_floats(clips[torch.arange(batch), frame]).to(device)
        with torch.no_grad():
            half = pixels[: batch // 2]
            blurred = vae.decode(vae.encode(half).latent_dist.mean).sample.float()
            pixels[: batch // 2] = blurred + 0.05 * torch.randn(half.shape, generator=draw).to(device)
        image = F.normalize(clip.encode_image(pixels).float(), dim=-1)
        text = F.normalize(clip.encode_text(tokens[indices].to(device)).float(), dim=-1)
        return contrast(image, text, clip.logit_scale.exp())

    return Stage("clip", nn.ModuleDict({"clip": clip}), loss, steps, lr=1e-3)


def save_half(module: nn.Module, folder: Path) -> None:
    """A diffusers or transformers module as half-precision safetensors, which loads in any precision."""
    module.to(torch.float16).save_pretrained(folder)
    module.float()


def save_clip(clip: nn.Module, folder: Path) -> None:
    """The layout that open_clip's `local-dir:` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(networks.clip_config(), indent=2) + "\n")
    weights = {name: value.half().contiguous() for name, value in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    networks.tokenizer().save_pretrained(folder)


def build_clip() -> nn.Module:
    """open_clip's model class from our own configuration."""
    cfg = networks.clip_config()["model_cfg"]
    return open_clip.CLIP(
        cfg["embed_dim"], open_clip.CLIPVisionCfg(**cfg["vision_cfg"]), open_clip.CLIPTextCfg(**cfg["text_cfg"])
    )


def start_from(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Reads each module's weights from its folder in an earlier training's `weights`."""
    for name, module in modules.items():
        (file,) = (folder / name).glob("*.safetensors")
        module.load_state_dict({key: value.float() for key, value in load_file(file).items()})


def train(
    weights: Path, work: Path, device: torch.device, steps: dict[str, int], clips: int, first: Path | None = None
) -> None:
    """The stages that have steps, in order; finished ones are read back from their checkpoints in `work`.

    Every network starts at random, or from the weights in the folder `first`.
    """
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    console.print(f"rendering {clips} clips")
    corpus = Corpus.render(directed_clips("train", clips))
    torch.manual_seed(SEED)
    vae, text, image = networks.autoencoder(), networks.text_encoder(), networks.image_unet()
    clip = build_clip()
    if first:
        start_from(first, {"vae": vae, "text_encoder": text, "image_unet": image, "clip": clip})
    for module in (vae, text, image, clip):
        module.to(device).eval()  # no dropout: it costs a tenth of the time and helps nothing
    stage = functools.partial(diffusion_stage, clips=corpus.clips, device=device)

    fit(autoencoder_stage(vae, corpus, device, steps["autoencoder"]), work, device)
    fit(decoder_stage(vae, corpus, device, steps["decoder"]), work, device)
    latents = encode(vae, corpus, device)
    save_half(vae, weights / "vae")

    frames = rearrange(latents, "b n c h w -> (n b) c h w")  # frame-major, so that index % clips is the clip
    options = {"batch": 32, "lr": 2e-3, "high_noise": 0}
    fit(stage("text_to_image", image, text, frames, steps=steps["text_to_image"], **options), work, device)
    save_half(text, weights / "text_encoder")
    networks.tokenizer().save_pretrained(weights / "tokenizer")
    networks.scheduler().save_pretrained(weights / "scheduler")
    save_half(image, weights / "image_unet")

    video, video_text = networks.video_unet(image).to(device).eval(), copy.deepcopy(text)
    if first and not steps["text_to_image"]:
        start_from(first, {"video_unet": video, "video_text_encoder": video_text})
    latents = rearrange(latents, "b n c h w -> b c n h w")
    # Which way the object moves is decided where its place can't be seen. It is the product of a word, a place in time
    # and a place in the frame, which many clips at once don't teach; a few do, and then more.
    options = {"batch": 4, "lr": 2e-3, "high_noise": PURE_NOISE, "group": len(MOTIONS), "doubling": 40}
    fit(stage("motion", video, video_text, latents, steps=steps["motion"], **options), work, device)
    options = {"batch": 8, "lr": 1.5e-3, "high_noise": 0, "group": len(MOTIONS)}
    fit(stage("text_to_video", video, video_text, latents, steps=steps["text_to_video"], **options), work, device)
    save_half(video_text, weights / "video_text_encoder")
    save_half(video, weights / "video_unet")

    fit(clip_stage(clip, corpus, vae, device, steps["clip"]), work, device)
    save_clip(clip, weights / "clip")
    console.print(f"weights in {weights}, {(time.monotonic() - started) / 60:.0f} minutes")


STEPS = {"autoencoder": 2000, "decoder": 700, "text_to_image": 8000, "motion": 600, "text_to_video": 3000, "clip": 4000}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the trained weights go")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/shapes-training"), help="checkpoints and loss curves"
    )
    parser.add_argument("--start-from", type=Path, help="begin with the weights in this folder instead of at random")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, default=CLIPS, help="size of the training corpus")
    for name, count in STEPS.items():
        parser.add_argument(f"--{name.replace('_', '-')}-steps", type=int, default=count, help="0 skips the stage")
    options = parser.parse_args()
    steps = {name: getattr(options, f"{name}_steps") for name in STEPS}
    train(options.weights, options.work, torch.device(options.device), steps, options.clips, options.start_from)


if __name__ == "__main__":
    main()
