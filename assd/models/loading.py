"""Where a model comes from: a folder or hub repository in diffusers' layout, or random weights at a published size."""

import inspect
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoModel, DDPMScheduler, UNet2DConditionModel, UNet3DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from assd.data.pairs import Canvas
from assd.device import resolve_device
from assd.errors import InputError, require
from assd.models.hub import how_to_fetch, is_folder, resolve_folder
from assd.models.store import held
from assd.models.unet import LatentDiffusion

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
PRECISIONS = ("float32", "bfloat16", "float16")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")  # of diffusers' DDPMScheduler


@held
def load(
    path: str,
    *,
    unet: str = "unet",
    vae: str | None = "vae",
    text_encoder: str = "text_encoder",
    revision: str | None = None,
    variant: str | None = None,
    allow_bin: bool = False,
    licence: str | None = None,
    download: str | None = None,
    architecture: str | None = None,
    random: bool = False,
    dtype: str = "float32",
    device: str = "auto",
    channels_last: bool = False,
    compile: str | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
) -> LatentDiffusion:
    """A model in diffusers' folder layout; the same arguments give the same object, so it is held once.

    path       local folder, `pkg://package/folder`, or hub id; no remote code is run. HF_HUB_OFFLINE is honoured
    unet, vae, text_encoder  their subfolders; `vae: null` for a model that only predicts noise on another's latents,
               of which the autoencoder's configuration alone is read
    revision, variant  of a hub repository: a commit, and `fp16` where it has half-precision files. A folder may do
               without that variant, and its revision is for a run's configuration to name: nothing here reads it
    allow_bin  read .bin files where there are no safetensors, unpickled as tensors alone (weights_only)
    licence, download  said when the model is missing: its terms, and the size of what would be fetched
    architecture  folder in the same layout that holds the configurations alone
    random     random weights at that architecture instead, to try memory and speed; what they edit means nothing
    dtype      precision of the networks; latents stay float32
    device     `auto` is the GPU where there is one
    channels_last, compile  memory format of the U-Net's convolutions, and a mode of torch.compile for it, `default`,
               `reduce-overhead` (CUDA graphs) or `max-autotune`: for speed, the result is the same to rounding
    height, width, num_frames  of the videos that a text-to-video model edits; a text-to-image model takes its frames

    Raises InputError when the model can't be read.
    """
    require(dtype in PRECISIONS, f"dtype must be one of {', '.join(PRECISIONS)}; got {dtype!r}")
    require(
        compile in (None, *COMPILE_MODES), f"compile must be null or one of {', '.join(COMPILE_MODES)}; got {compile!r}"
    )
    canvas = whole_canvas(num_frames, height, width)
    place, precision = resolve_device(device), getattr(torch, dtype)
    if random:
        require(architecture is not None, "random weights need an architecture: a folder of configurations")
        parts = random_parts(resolve_folder(architecture), vae, precision)
    else:
        repository = Repository(path, unet, vae, text_encoder, revision, variant, allow_bin, licence, download)
        parts = repository.parts(precision)
    if channels_last:
        to_channels_last(parts["unet"])
    if compile:
        parts["unet"].compile(mode=compile)
    return LatentDiffusion(**parts, canvas=canvas, device=place)


def whole_canvas(num_frames: int | None, height: int | None, width: int | None) -> Canvas | None:
    """The canvas of a video model; None for an image model, of which nothing is said.

    Raises InputError where only a part is said.
    """
    sides = {"num_frames": num_frames, "height": height, "width": width}
    missing = [name for name, value in sides.items() if value is None]
    require(
        len(missing) in (0, len(sides)),
        f"a video model needs num_frames, height and width, and an image model none of them; {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} null",
    )
    return None if missing else Canvas(num_frames, height, width)


@dataclass(frozen=True)
class Repository:
    """A local folder or hub repository in diffusers' layout, and which of its files are read: `load` says more."""

    path: str
    unet: str
    vae: str | None
    text_encoder: str
    revision: str | None
    variant: str | None
    allow_bin: bool
    licence: str | None
    download: str | None

    def parts(self, precision: torch.dtype) -> dict[str, Any]:
        """The constructor's parts. Raises InputError, which says how to fetch what is missing."""
        folder = resolve_folder(self.path)
        try:
            return self._parts(folder, precision)
        except InputError:
            raise
        except Exception as error:  # what loaders say of a damaged file has no common ancestor
            damaged = damaged_weights(Path(folder))
            what = f"{', '.join(damaged)} is damaged or cut off: get it again ({error})" if damaged else str(error)
            folders = ", ".join(f"{part}/" for part in (self.unet, self.vae or "vae", self.text_encoder, "tokenizer"))
            raise InputError(
                f"model path {self.path!r} can't be loaded: {what}\nIt must be a folder in diffusers' layout with "
                f"{folders} and scheduler/, or the hub id of one.{self.how_to_fetch()}"
            ) from error

    def _parts(self, folder: str, precision: torch.dtype) -> dict[str, Any]:
        transformers_logging.disable_progress_bar()
        is_local = is_folder(self.path)
        common: dict[str, Any] = {"revision": self.revision} if self.revision and not is_local else {}
        weights = common | {"torch_dtype": precision, "use_safetensors": None if self.allow_bin else True}
        if self.variant and (not is_local or any(Path(folder, self.unet).glob(f"*.{self.variant}.*"))):
            weights |= {"variant": self.variant}
        return dict(
            unet=AutoModel.from_pretrained(folder, subfolder=self.unet, **weights),
            vae=AutoencoderKL.from_pretrained(folder, subfolder=self.vae, **weights) if self.vae else None,
            text_encoder=CLIPTextModel.from_pretrained(folder, subfolder=self.text_encoder, **weights),
            tokenizer=AutoTokenizer.from_pretrained(folder, subfolder="tokenizer", **common),
            scheduler=scheduler(folder, **common),
            vae_config=complete(AutoencoderKL.load_config(folder, subfolder=self.vae or "vae", **common)),
        )

    def how_to_fetch(self) -> str:
        """What a person types to get the files that are read."""
        suffixes = [f".{self.variant}.safetensors" if self.variant else ".safetensors"]
        suffixes += [".bin"] if self.allow_bin else []
        networks = [name for name in (self.unet, self.vae, self.text_encoder) if name]
        wanted = ["*/*.json", "tokenizer/*", *(f"{name}/*{suffix}" for name in networks for suffix in suffixes)]
        return how_to_fetch(self.path, wanted, self.revision, self.download, self.licence)


def damaged_weights(folder: Path) -> list[str]:
    """The safetensors files of a model's folder whose header does not fit their content."""
    damaged = []
    for file in sorted(folder.glob("*/*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            damaged.append(str(file))
    return damaged


def scheduler(folder: str, **where: Any) -> DDPMScheduler:
    """The noise schedule. Raises InputError for one that diffusers does not know."""
    config = DDPMScheduler.load_config(folder, subfolder="scheduler", **where)
    known = config.get("beta_schedule", BETA_SCHEDULES[0])
    require(
        known in BETA_SCHEDULES or config.get("trained_betas") is not None,
        f"{folder}/scheduler: beta_schedule must be one of {', '.join(BETA_SCHEDULES)}; got {known!r}",
    )
    made = DDPMScheduler.from_config(config)
    assert isinstance(made, DDPMScheduler)  # and no tuple, which is returned on request
    return made


def complete(vae_config: dict[str, Any]) -> dict[str, Any]:
    """An autoencoder's configuration with diffusers' default scaling factor, which older repositories leave out."""
    default = inspect.signature(AutoencoderKL.__init__).parameters["scaling_factor"].default
    return {"scaling_factor": default, **vae_config}


def random_parts(folder: str, vae: str | None, precision: torch.dtype) -> dict[str, Any]:
    """The constructor's parts with random weights (seed 0), sized by the configurations in a folder."""
    unet_class = {cls.__name__: cls for cls in (UNet2DConditionModel, UNet3DConditionModel)}
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(precision)
    try:
        unet_config = UNet2DConditionModel.load_config(folder, subfolder="unet")
        vae_config = AutoencoderKL.load_config(folder, subfolder="vae")
        return dict(
            unet=unet_class[unet_config["_class_name"]].from_config(unet_config),
            vae=AutoencoderKL.from_config(vae_config) if vae else None,
            text_encoder=CLIPTextModel(CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder")),
            tokenizer=clip_tokenizer(),
            scheduler=DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
            vae_config=complete(vae_config),
        )
    finally:
        torch.set_default_dtype(before)


def clip_tokenizer() -> PreTrainedTokenizerBase:
    """CLIP's byte-pair tokenizer, from the copy of its vocabulary that open_clip carries."""
    bpe = SimpleTokenizer()
    ids = dict(bpe.encoder)
    ids |= {"<|startoftext|>": ids.pop("<start_of_text>"), "<|endoftext|>": ids.pop("<end_of_text>")}
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps(ids))
        merges.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in bpe.bpe_ranks))
        return CLIPTokenizer.from_pretrained(folder, model_max_length=bpe.context_length)


def to_channels_last(unet: nn.Module) -> None:
    """Weights of the 2-D and 3-D convolutions in the layout that convolution kernels of GPUs prefer."""
    for module in unet.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            layout = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
            module.to(memory_format=layout)
