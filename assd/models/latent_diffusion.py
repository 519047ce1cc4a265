"""A model is a frozen latent diffusion model behind one small interface: encode, decode, embed, predict noise.

Text-to-video and text-to-image models differ only in whether their latents have a time axis.
"""

import contextlib
import functools
import logging
import re
from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL, SchedulerMixin
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from assd.errors import InputError, require

log = logging.getLogger(__name__)
FRAMES_AT_ONCE = 4  # encoded or decoded together, to bound memory


class LatentDiffusion:
    """A frozen latent diffusion model from diffusers and transformers components.

    vae                        None for a model that only predicts noise, on another model's latents
    scaling_factor             its latents' scale: what `vae` has, or what an absent one would have
    height, width, num_frames  the size a text-to-video model works at: what datasets prepare for it
    device                     where the U-Net stays; the autoencoder and the text encoder visit it when they are used
    """

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: AutoencoderKL | None,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 1,
        scaling_factor: float | None = None,
        device: torch.device | None = None,
    ):
        for module in filter(None, (unet, vae, text_encoder)):
            module.eval().requires_grad_(False)
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.device = device or torch.device("cpu")
        self.unet.to(self.device)
        self.alphas_cumprod = scheduler.alphas_cumprod.double()  # abar_t; on the CPU, where t is
        self.prediction_type = scheduler.config.prediction_type
        require(
            self.prediction_type in ("epsilon", "v_prediction"),
            f"the scheduler's prediction_type must be epsilon or v_prediction; got {self.prediction_type!r}",
        )
        self.scaling_factor = vae.config.scaling_factor if vae else scaling_factor
        self.height, self.width, self.num_frames = height, width, num_frames
        self.embed = functools.lru_cache(maxsize=64)(self.embed)

    @contextlib.contextmanager
    def autoencoder(self) -> Iterator[AutoencoderKL]:
        """The autoencoder, on the device within the context. Raises InputError for a model without one."""
        if self.vae is None:
            raise InputError("this model has no autoencoder (vae: null): it predicts noise on another model's latents")
        with visiting(self.vae, self.device):
            yield self.vae

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "c n h w"]:
        """Pixels in [-1, 1] to the latent: the posterior's mean times the autoencoder's scaling factor, in float32."""
        with self.autoencoder() as vae:
            chunks = frames.to(self.device, vae.dtype).split(FRAMES_AT_ONCE)
            latents = torch.cat([vae.encode(chunk).latent_dist.mean.float() for chunk in chunks])
        return rearrange(latents * self.scaling_factor, "n c h w -> c n h w").contiguous()

    @torch.no_grad()
    def decode(self, Z: Float[Tensor, "c n h w"]) -> Float[Tensor, "n 3 H W"]:
        """The latent to pixels in [-1, 1], in float32 on the CPU."""
        with self.autoencoder() as vae:
            latents = rearrange(Z / self.scaling_factor, "c n h w -> n c h w").to(vae.dtype)
            chunks = [vae.decode(chunk).sample.float().cpu() for chunk in latents.split(FRAMES_AT_ONCE)]
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

    def add_noise(self, z: Float[Tensor, "*shape"], t: int, eps: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
        """The forward process, Eq. 1: Z_t = sqrt(abar_t) Z + sqrt(1 - abar_t) eps.

        Branches on a leading axis of z share an eps that lacks it.
        """
        abar = self.alphas_cumprod[t].item()
        return abar**0.5 * z + (1 - abar) ** 0.5 * eps

    @torch.no_grad()
    def predict(
        self, z_t: Float[Tensor, "b ..."], t: int, embeddings: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b ..."]:
        """What the network was trained to predict, eps or v as `prediction_type` says, in float32."""
        on_device = torch.full((1,), t, device=z_t.device)  # from a plain number the U-Net would make it with a wait
        prediction = self.unet(z_t.to(self.unet.dtype), on_device, encoder_hidden_states=embeddings).sample
        return prediction.to(torch.float32, copy=True)  # the next pass of a CUDA graph overwrites its output

    def predict_noise(
        self, z_t: Float[Tensor, "b ..."], t: int, embeddings: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b ..."]:
        """eps_theta(z_t, t, y) in float32, whatever the network was trained to predict."""
        prediction = self.predict(z_t, t, embeddings)
        if self.prediction_type == "epsilon":
            return prediction
        abar = self.alphas_cumprod[t].item()  # v = sqrt(abar) eps - sqrt(1 - abar) z, Salimans and Ho (2022)
        return abar**0.5 * prediction + (1 - abar) ** 0.5 * z_t

    def check_shares_latents(self, other: "LatentDiffusion") -> None:
        """Raises InputError unless both read the same latents under the same noise schedule, as one gradient needs.

        Of the autoencoder the number of channels and the scale are compared, not the weights: an absent one has none.
        """
        ours, theirs = self.unet.config.in_channels, other.unet.config.in_channels
        require(
            ours == theirs, f"model and image_model must have one latent space; they have {ours} and {theirs} channels"
        )
        ours, theirs = self.scaling_factor, other.scaling_factor
        require(
            ours == theirs,
            f"model and image_model must share an autoencoder; their scaling factors are {ours} and {theirs}",
        )
        ours, theirs = self.alphas_cumprod, other.alphas_cumprod
        require(
            ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4),
            "model and image_model must have one noise schedule: at one t their Z_t differ. "
            "Take models of one family, or loss=[assd] without joint guidance",
        )


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
