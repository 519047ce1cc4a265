"""What each stage of the training learns, and by which loss."""

from collections import defaultdict
from collections.abc import Callable

import cv2
import numpy as np
import open_clip
import torch
from diffusers.models.attention_processor import AttnProcessor
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from assd.shapes import networks
from assd.shapes.corpus import Corpus, to_floats
from assd.shapes.fit import Stage
from assd.shapes.world import ATTRIBUTES, MOTIONS, Clip

EMPTY_CAPTIONS = 0.1  # share of captions replaced by the empty prompt, for classifier-free guidance
READING_WEIGHT = 0.1  # of the text encoder's own task beside the diffusion loss
IGNORED = -100  # cross-entropy's mark of an unknown class
KL_WEIGHT = 3e-4  # on the mean over a latent's elements
CANNY = (100, 200)  # OpenCV's lower and upper threshold

Teacher = Callable[[Tensor, Tensor, Tensor], Tensor]  # noisy latents Z_t, timesteps and captions' tokens to v


def gather(corpus: Tensor, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """`size` entries of a stacked corpus, drawn with replacement, and their indices."""
    indices = torch.randint(len(corpus), (size,), generator=draw)
    return corpus[indices], indices


def autoencoder_stage(vae: nn.Module, corpus: Corpus, device: torch.device, steps: int, batch: int = 16) -> Stage:
    """Absolute plus squared error, five times heavier on the objects, and a little KL to keep latents compact."""
    frames, masks = corpus.frames.flatten(0, 1), corpus.masks.flatten(0, 1)

    def loss(draw: torch.Generator) -> Tensor:
        pixels, indices = gather(frames, batch, draw)
        pixels = to_floats(pixels).to(device)
        weight = 1 + 4 * masks[indices][:, None].to(device)
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw).to(device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        error = decoded - pixels
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return (weight * (error.abs() + error.square())).mean() + KL_WEIGHT * kl

    return Stage("autoencoder", nn.ModuleDict({"vae": vae}), loss, steps, lr=4e-3)


def decoder_stage(vae: nn.Module, corpus: Corpus, device: torch.device, steps: int, batch: int = 16) -> Stage:
    """The decoder alone, on squared error of what the encoder really gives: latents stay, reconstructions sharpen."""
    frames = corpus.frames.flatten(0, 1)

    def loss(draw: torch.Generator) -> Tensor:
        pixels, _ = gather(frames, batch, draw)
        pixels = to_floats(pixels).to(device)
        with torch.no_grad():
            z = vae.encode(pixels).latent_dist.mean
        return F.mse_loss(vae.decode(z).sample.float(), pixels)

    modules = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    return Stage("decoder", nn.ModuleDict(modules), loss, steps, lr=2e-3)


def clip_stage(
    clip: nn.Module, corpus: Corpus, vae: nn.Module, device: torch.device, steps: int, batch: int = 64
) -> Stage:
    """The CLIP loss on single frames, half of them through the autoencoder, as edited videos will be."""
    tokenizer, contrast = networks.tokenizer(), open_clip.ClipLoss()
    tokens = tokenizer([c.caption for c in corpus.clips], padding="max_length", return_tensors="pt").input_ids

    def loss(draw: torch.Generator) -> Tensor:
        clips, indices = gather(corpus.frames, batch, draw)
        frame = torch.randint(clips.shape[1], (batch,), generator=draw)
        pixels = to_floats(clips[torch.arange(batch), frame]).to(device)
        with torch.no_grad():
            half = pixels[: batch // 2]
            blurred = vae.decode(vae.encode(half).latent_dist.mean).sample.float()
            pixels[: batch // 2] = blurred + 0.05 * torch.randn(half.shape, generator=draw).to(device)
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU the backward pass of the fused kernel is slow
            image = F.normalize(clip.encode_image(pixels).float(), dim=-1)
            text = F.normalize(clip.encode_text(tokens[indices].to(device)).float(), dim=-1)
        return contrast(image, text, clip.logit_scale.exp())

    return Stage("clip", nn.ModuleDict({"clip": clip}), loss, steps, lr=1e-3)


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


class Captions:
    """The corpus's captions as tokens and as attribute indices; the last one is empty."""

    def __init__(self, clips: list[Clip], device: torch.device):
        captions = [*(clip.caption for clip in clips), ""]
        tokens = networks.tokenizer()(captions, padding="max_length", return_tensors="pt").input_ids
        self.tokens = tokens.to(device)
        self.attributes = {
            name: torch.tensor([*(values.index(getattr(clip, name)) for clip in clips), IGNORED]).to(device)
            for name, values in ATTRIBUTES.items()
        }
        self.empty = len(clips)


class Denoising:
    """Velocity prediction (Salimans and Ho 2022): || v - v_theta(Z_t, t, y) ||^2, some captions left empty.

    v = sqrt(abar_t) eps - sqrt(1 - abar_t) Z. It is Eq. 2 with the weight 1 / abar_t: what a caption decides is decided
    at high noise, which plain noise prediction hardly weighs. Timesteps are drawn with a density proportional to
    t^high_noise, uniformly for 0. Every `group` neighbours among the latents are drawn together, under one t and one
    eps, so that the loss tells them apart by what differs between them; that part of the error counts `apart` times.
    """

    def __init__(self, latents: Tensor, batch: int, high_noise: int = 0, group: int = 1, apart: float = 1.0):
        self.latents, self.scheduler = latents, networks.scheduler()
        self.groups, self.group, self.apart = batch // group, group, apart
        self.high_noise = high_noise

    def draw(self, rng: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
        """Indices among the latents (on the CPU), the noisy latents Z_t, t, and the velocity to predict."""
        first = self.group * torch.randint(len(self.latents) // self.group, (self.groups,), generator=rng)
        indices = (first[:, None] + torch.arange(self.group)).flatten()
        z = self.latents[indices].to(device)
        eps = torch.randn((len(first), *z.shape[1:]), generator=rng).repeat_interleave(self.group, 0).to(device)
        high = torch.rand(len(first), generator=rng) ** (1 / (1 + self.high_noise))
        t = (len(self.scheduler) * high).long().repeat_interleave(self.group).to(device)
        return indices, self.scheduler.add_noise(z, eps, t), t, self.scheduler.get_velocity(z, eps, t)

    def caption(self, rng: torch.Generator, indices: Tensor, captions: Captions) -> Tensor:
        """Which caption each entry gets; a whole group goes without at a time."""
        without = torch.rand(self.groups, generator=rng) < EMPTY_CAPTIONS
        return torch.where(without.repeat_interleave(self.group), captions.empty, indices % captions.empty)

    def error(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The mean squared error: of a group's mean, and `apart` times of what each differs from it."""
        errors = (predicted.float() - target.float()).unflatten(0, (self.groups, self.group))
        shared = errors.mean(1, keepdim=True)
        return shared.square().mean() + self.apart * (errors - shared).square().mean()


def foretold(clips: list[Clip], latents: Tensor) -> tuple[list[Clip], Tensor]:
    """What a caption says before anything is seen: the mean latent of all clips it describes.

    The best prediction from pure noise, so that learning it needs no more than one example a caption. Groups of four
    neighbours that differ in their motion, as in `directed_clips`, each colour, shape and background once.
    """
    described, groups = defaultdict(list), {}
    for index, clip in enumerate(clips):
        described[clip.caption].append(index)
    for first in range(0, len(clips), len(MOTIONS)):
        group = clips[first : first + len(MOTIONS)]
        groups.setdefault((group[0].colour, group[0].shape, group[0].background), group)
    chosen = [clip for group in groups.values() for clip in group]
    return chosen, torch.stack([latents[described[clip.caption]].mean(0) for clip in chosen])


def plain_attention(network: nn.Module, device: torch.device) -> None:
    """On a CPU, attention in plain operations: the backward pass of the fused kernel is slow there."""
    if device.type == "cpu":
        network.set_attn_processor(AttnProcessor())


def diffusion_stage(
    name: str,
    unet: nn.Module,
    text_encoder: nn.Module,
    task: Denoising,
    captions: Captions,
    device: torch.device,
    steps: int,
    lr: float,
    reader: Reader,
    teacher: Teacher | None = None,
) -> Stage:
    """A U-Net and its text encoder learn to denoise, and the text encoder to keep its words apart for the reader.

    With a teacher they learn what it predicts, in place of the velocity that was drawn.
    """
    plain_attention(unet, device)

    def loss(rng: torch.Generator) -> Tensor:
        indices, z_t, t, v = task.draw(rng, device)
        caption = task.caption(rng, indices, captions)
        tokens = captions.tokens[caption]
        embeddings = text_encoder(tokens).last_hidden_state
        told = {name: of_clips[caption] for name, of_clips in captions.attributes.items()}
        target = teacher(z_t, t, tokens) if teacher else v
        return task.error(unet(z_t, t, embeddings).sample, target) + READING_WEIGHT * reader(embeddings, told)

    modules = {"unet": unet, "text_encoder": text_encoder, "reader": reader}
    return Stage(name, nn.ModuleDict(modules), loss, steps, lr)


def prediction_of(unet: nn.Module, text_encoder: nn.Module) -> Teacher:
    """What a trained U-Net predicts: a velocity without the chance of one noise, so that a pupil needs fewer steps."""

    @torch.no_grad()
    def predict(z_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        return unet(z_t, t, text_encoder(tokens).last_hidden_state).sample

    return predict


def control_net_stage(
    control_net: nn.Module,
    unet: nn.Module,
    text_encoder: nn.Module,
    task: Denoising,
    captions: Captions,
    corpus: Corpus,
    device: torch.device,
    steps: int,
) -> Stage:
    """A ControlNet (Zhang et al. 2023) learns to denoise from a frame's edges, beside the frozen image U-Net."""
    plain_attention(control_net, device)

    def loss(rng: torch.Generator) -> Tensor:
        indices, z_t, t, v = task.draw(rng, device)
        caption = task.caption(rng, indices, captions)
        frames = corpus.frames[indices % len(corpus.clips), indices // len(corpus.clips)]
        embeddings = text_encoder(captions.tokens[caption]).last_hidden_state
        down, mid = control_net(z_t, t, embeddings, edges(frames).to(device), return_dict=False)
        predicted = unet(
            z_t, t, embeddings, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
        return task.error(predicted, v)

    return Stage("control_net", nn.ModuleDict({"control_net": control_net}), loss, steps, lr=1e-3)


def edges(frames: Tensor) -> Tensor:
    """Canny edges of frames given as bytes (b, 3, H, W): 0 or 1, on three channels alike, as ControlNets take them."""
    maps = [cv2.Canny(np.ascontiguousarray(frame.numpy()), *CANNY) for frame in frames.movedim(1, -1)]
    return torch.from_numpy(np.stack(maps))[:, None].expand(-1, 3, -1, -1).float() / 255
