"""U-Nets of diffusers as models: ModelScopeT2V's, whose layers see time, and Stable Diffusion's, frame by frame."""

import contextlib
import functools
import logging
import re
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AutoencoderKL, SchedulerMixin, UNet3DConditionModel
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from assd.data.pairs import Canvas
from assd.diffusion.model import AttentionLayers, LatentSpace
from assd.diffusion.schedule import Schedule
from assd.errors import InputError, require

log = logging.getLogger(__name__)
FRAMES_AT_ONCE = 4  # encoded or decoded together, to bound memory
READ = ("epsilon", "v_prediction", "sample")  # what a U-Net of diffusers may predict


class LatentDiffusion:
    """A frozen latent diffusion model from diffusers and transformers components; see `assd.diffusion.model.Model`.

    unet        `UNet3DConditionModel`, or `UNet2DConditionModel`, which sees each frame alone
    vae         None for a model that only predicts, on another model's latents
    vae_config  the autoencoder's configuration, which is known for an absent one too
    canvas      the length and size a text-to-video model works at; an image model has none of its own
    device      where the U-Net stays; the autoencoder and the text encoder visit it when they are used
    """

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: AutoencoderKL | None,
        vae_config: dict[str, Any],
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        canvas: Canvas | None = None,
        device: torch.device | None = None,
    ):
        for module in filter(None, (unet, vae, text_encoder)):
            module.eval().requires_grad_(False)
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.device, self.canvas = device or torch.device("cpu"), canvas
        self.unet.to(self.device)
        self.layers = attention_layers(unet)
        self.latents = latent_space(unet.config.in_channels, vae_config)
        self.schedule = Schedule.from_alphas_cumprod(scheduler.alphas_cumprod, scheduler.config)
        self.prediction = scheduler.config.prediction_type
        require(
            self.prediction in READ,
            f"the scheduler's prediction_type must be one of {', '.join(READ)}; got {self.prediction!r}",
        )
        self.embed = functools.lru_cache(maxsize=64)(self.embed)

    @property
    def network(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    @property
    def sees_time(self) -> bool:
        """Whether the frames of a video see each other."""
        return isinstance(self.unet, UNet3DConditionModel)

    @contextlib.contextmanager
    def autoencoder(self) -> Iterator[AutoencoderKL]:
        """The autoencoder, on the device within the context. Raises InputError for a model without one."""
        if self.vae is None:
            raise InputError("this model has no autoencoder (vae: null): it predicts noise on another model's latents")
        with visiting(self.vae, self.device):
            yield self.vae

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "c f h w"]:
        """Pixels in [-1, 1] to the latent: the posterior's mean, normalised, in float32."""
        with self.autoencoder() as vae:
            chunks = frames.to(self.device, vae.dtype).split(FRAMES_AT_ONCE)
            raw = torch.cat([vae.encode(chunk).latent_dist.mean.float() for chunk in chunks])
        return self.latents.normalised(rearrange(raw, "f c h w -> c f h w")).contiguous()

    @torch.no_grad()
    def decode(self, Z: Float[Tensor, "c f h w"]) -> Float[Tensor, "n 3 H W"]:
        """The latent to pixels in [-1, 1], in float32 on the CPU."""
        with self.autoencoder() as vae:
            raw = rearrange(self.latents.restored(Z), "c f h w -> f c h w").to(vae.dtype)
            chunks = [vae.decode(chunk).sample.float().cpu() for chunk in raw.split(FRAMES_AT_ONCE)]
        return torch.cat(chunks).clamp(-1, 1)

    @torch.no_grad()
    def embed(self, prompts: tuple[str, ...]) -> Float[Tensor, "b l d"]:
        """Text embeddings, remembered: prompts don't change. `check_prompt` says what is cut or unknown."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        with visiting(self.text_encoder, self.device):
            return self.text_encoder(tokens.to(self.device)).last_hidden_state

    def check_prompt(self, prompt: str) -> None:
        """Raises InputError for an empty prompt or one with words unknown to the tokenizer; warns when one is cut."""
        tokenizer = self.tokenizer
        require(bool(prompt.strip()), "the prompt is empty: describe the video in words")
        if unknown := unknown_words(tokenizer, prompt):
            known = [word for word in tokenizer.get_vocab() if word not in tokenizer.all_special_tokens]
            raise InputError(
                f"prompt {prompt!r}: this model does not know {', '.join(map(repr, unknown))}. "
                f"Its words are: {', '.join(sorted(known))}"
            )
        length = tokenizer.model_max_length
        ids = tokenizer(prompt).input_ids
        if len(ids) > length:
            kept = tokenizer.decode(
                tokenizer(prompt, max_length=length, truncation=True).input_ids, skip_special_tokens=True
            )
            log.warning(
                "prompt %r has %d tokens and the text encoder reads %d: everything after %r is cut",
                prompt, len(ids), length, kept,
            )  # fmt: skip

    def predict(
        self, z_t: Float[Tensor, "b c f h w"], t: int, embeddings: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b c f h w"]:
        """What the network was trained to predict, eps, v or Z as `prediction` says, in float32.

        A network that sees each frame alone gets them as a batch in the order (b, f), each under its video's prompt.
        """
        if self.sees_time:
            return self.forward(z_t, t, embeddings)
        frames = z_t.shape[2]
        batch = rearrange(z_t, "b c f h w -> (b f) c h w")
        prediction = self.forward(batch, t, embeddings.repeat_interleave(frames, 0))
        return rearrange(prediction, "(b f) c h w -> b c f h w", f=frames)

    def forward(
        self, z_t: Float[Tensor, "b ..."], t: int, embeddings: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b ..."]:
        """One pass of the U-Net, in float32; no gradient is recorded unless a parameter or an input asks for one."""
        on_device = torch.full((1,), t, device=z_t.device)  # from a plain number the U-Net would make it with a wait
        prediction = self.unet(z_t.to(self.unet.dtype), on_device, encoder_hidden_states=embeddings).sample
        return prediction.to(torch.float32, copy=True)  # the next pass of a CUDA graph overwrites its output


def latent_space(channels: int, vae_config: dict[str, Any]) -> LatentSpace:
    """As diffusers' autoencoders state it: a mean and a deviation a channel, or one factor and one shift."""
    means, deviations = vae_config.get("latents_mean"), vae_config.get("latents_std")
    if means and deviations:
        factor = vae_config["scaling_factor"]
        return LatentSpace(channels, tuple(factor / deviation for deviation in deviations), tuple(means))
    return LatentSpace(channels, float(vae_config["scaling_factor"]), float(vae_config.get("shift_factor") or 0.0))


def attention_layers(unet: nn.Module) -> AttentionLayers:
    """The attention layers of a diffusers U-Net by their paths: encoder, middle, decoder."""
    parts = ("transformer_in", "down_blocks", "mid_block", "up_blocks")  # in the order in which they run
    found = [path for path, module in unet.named_modules() if isinstance(module, Attention)]
    paths = [path for part in parts for path in found if path.startswith(part)]
    temporal = tuple(path for path in paths if "temp_attentions" in path or path.startswith("transformer_in"))
    spatial = [path for path in paths if path not in temporal]
    self_attention = tuple(path for path in spatial if path.endswith("attn1"))
    return AttentionLayers(
        self_attention=self_attention,
        cross_attention=tuple(path for path in spatial if path.endswith("attn2")),
        temporal_attention=temporal,
        decoder_self_attention=tuple(path for path in self_attention if path.startswith("up_blocks")),
    )


def convolution_before(attention: str) -> str:
    """The second convolution of the ResNet block that runs before an attention layer.

    >>> convolution_before("up_blocks.1.attentions.1.transformer_blocks.0.attn1")
    'up_blocks.1.resnets.1.conv2'
    """
    block, _, path = attention.partition(".attentions.")
    return f"{block}.resnets.{path.partition('.')[0]}.conv2"


def unknown_words(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    """The words that a tokenizer has no token for: none of a byte-pair tokenizer's, as CLIP's published one is."""
    unk = tokenizer.unk_token_id
    if unk in (None, tokenizer.eos_token_id):
        return []
    return [word for word in re.findall(r"\w+|[^\w\s]", prompt) if unk in tokenizer(word).input_ids]


@contextlib.contextmanager
def visiting(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it the module is on the device; afterwards it is back where it was, its memory on the device free."""
    home = next(module.parameters()).device
    module.to(device)
    try:
        yield
    finally:
        module.to(home)
