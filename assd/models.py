"""A model is a frozen latent diffusion model behind one small interface: encode, decode, embed, predict noise.

Text-to-video and text-to-image models differ only in whether their latents have a time axis.
"""

import functools
import importlib.resources
import logging
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoModel, DDPMScheduler, SchedulerMixin
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from assd.errors import InputError, require

log = logging.getLogger(__name__)
EMBEDDED = "pkg://"  # a folder inside an installed package, `pkg://assd.shapes/weights`
PRECISIONS = ("float32", "bfloat16", "float16")
FRAMES_AT_ONCE = 16  # encoded or decoded together, to bound memory


class LatentDiffusion:
    """A frozen latent diffusion model from diffusers and transformers components.

    height, width, num_frames  the size it works at, in pixels and frames: what datasets prepare for it
    """

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        height: int,
        width: int,
        num_frames: int = 1,
    ):
        for module in (unet, vae, text_encoder):
            module.eval().requires_grad_(False)
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.alphas_cumprod = scheduler.alphas_cumprod.double()  # abar_t; on the CPU, where t is
        self.prediction_type = scheduler.config.prediction_type
        require(
            self.prediction_type in ("epsilon", "v_prediction"),
            f"the scheduler's prediction_type must be epsilon or v_prediction; got {self.prediction_type!r}",
        )
        self.height, self.width, self.num_frames = height, width, num_frames
        self.embed = functools.lru_cache(maxsize=64)(self.embed)

    @classmethod
    @functools.cache
    def from_pretrained(
        cls,
        path: str,
        *,
        unet: str = "unet",
        text_encoder: str = "text_encoder",
        revision: str | None = None,
        variant: str | None = None,
        dtype: str = "float32",
        device: str = "auto",
        height: int,
        width: int,
        num_frames: int = 1,
    ) -> "LatentDiffusion":
        """Loads a model in diffusers' folder layout; the same arguments give the same object, so it is held once.

        path    local folder, `pkg://package/folder`, or hub id. Only safetensors are read, no remote code is run.
        unet, text_encoder  their subfolders
        dtype   precision of the networks; latents stay float32
        device  `auto` is the GPU where there is one

        Raises InputError when the model can't be read.
        """
        require(dtype in PRECISIONS, f"dtype must be one of {', '.join(PRECISIONS)}; got {dtype!r}")
        place = resolve_device(device)
        folder = resolve_folder(path)
        transformers_logging.disable_progress_bar()
        common = {"revision": revision} if revision else {}
        weights = common | {"torch_dtype": getattr(torch, dtype), "use_safetensors": True}
        weights |= {"variant": variant} if variant else {}
        try:
            model = cls(
                unet=AutoModel.from_pretrained(folder, subfolder=unet, **weights),
                vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", **weights),
                text_encoder=CLIPTextModel.from_pretrained(folder, subfolder=text_encoder, **weights),
                tokenizer=AutoTokenizer.from_pretrained(folder, subfolder="tokenizer", **common),
                scheduler=DDPMScheduler.from_pretrained(folder, subfolder="scheduler", **common),
                height=height,
                width=width,
                num_frames=num_frames,
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"model path {path!r} can't be loaded: {error}\nIt must be a folder in diffusers' layout with "
                f"{unet}/, vae/, {text_encoder}/, tokenizer/ and scheduler/, or the hub id of one"
            ) from error
        return model.to(place)

    def to(self, device: torch.device) -> "LatentDiffusion":
        """Moves the networks."""
        for module in (self.unet, self.vae, self.text_encoder):
            module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the U-Net is, and with it the latents."""
        return next(self.unet.parameters()).device

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "c n h w"]:
        """Pixels in [-1, 1] to the latent: the posterior's mean times the autoencoder's scaling factor, in float32."""
        chunks = frames.to(self.vae.device, self.vae.dtype).split(FRAMES_AT_ONCE)
        latents = torch.cat([self.vae.encode(chunk).latent_dist.mean.float() for chunk in chunks])
        return rearrange(latents * self.vae.config.scaling_factor, "n c h w -> c n h w").contiguous()

    @torch.no_grad()
    def decode(self, Z: Float[Tensor, "c n h w"]) -> Float[Tensor, "n 3 H W"]:
        """The latent to pixels in [-1, 1], in float32 on the CPU."""
        latents = rearrange(Z / self.vae.config.scaling_factor, "c n h w -> n c h w").to(self.vae.dtype)
        chunks = [self.vae.decode(chunk).sample.float().cpu() for chunk in latents.split(FRAMES_AT_ONCE)]
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
        return self.text_encoder(tokens.to(self.text_encoder.device)).last_hidden_state

    def check_prompt(self, prompt: str) -> None:
        """Raises InputError for an empty prompt or one with words unknown to the tokenizer; warns when one is cut."""
        tokenizer = self.tokenizer
        require(bool(prompt.strip()), "the prompt is empty: describe the video in words")
        unk = tokenizer.unk_token_id
        if unk not in (None, tokenizer.eos_token_id):
            known = [word for word in tokenizer.get_vocab() if word not in tokenizer.all_special_tokens]
            unknown = [word for word in re.findall(r"\w+|[^\w\s]", prompt) if unk in tokenizer(word).input_ids]
            require(
                not unknown,
                f"prompt {prompt!r}: this model does not know {', '.join(map(repr, unknown))}. "
                f"Its words are: {', '.join(sorted(known))}",
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
    def predict_noise(
        self, z_t: Float[Tensor, "b ..."], t: int, embeddings: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b ..."]:
        """eps_theta(z_t, t, y) in float32, whatever the network was trained to predict."""
        output = self.unet(z_t.to(self.unet.dtype), t, encoder_hidden_states=embeddings).sample.float()
        if self.prediction_type == "epsilon":
            return output
        abar = self.alphas_cumprod[t].item()  # v = sqrt(abar) eps - sqrt(1 - abar) z, Salimans and Ho (2022)
        return abar**0.5 * output + (1 - abar) ** 0.5 * z_t


def resolve_folder(path: str) -> str:
    """`pkg://package/folder` to where that folder is installed; anything else unchanged."""
    if not path.startswith(EMBEDDED):
        return path
    package, _, folder = path.removeprefix(EMBEDDED).partition("/")
    return str(Path(str(importlib.resources.files(package))) / folder)


def resolve_device(device: str) -> torch.device:
    """A torch device; `auto` is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    require(
        re.fullmatch(r"cpu|cuda(:\d+)?", device) is not None,
        f"device must be auto, cpu, cuda or cuda:<number>; got {device!r}",
    )
    chosen = torch.device(device)
    require(
        chosen.type == "cpu" or (chosen.index or 0) < torch.cuda.device_count(),
        f"device is {device!r}, and torch sees {torch.cuda.device_count()} GPUs here: use device=auto or device=cpu",
    )
    return chosen
