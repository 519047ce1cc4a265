"""A ControlNet beside an image U-Net (Zhang et al. 2023): what a map of edges, depth or poses adds inside the U-Net."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from assd.device import resolve_device
from assd.errors import InputError, require
from assd.models.hub import how_to_fetch, is_folder, resolve_folder
from assd.models.loading import PRECISIONS
from assd.models.store import held

SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")  # with the U-Net beside it


class Residuals(NamedTuple):
    """What is added in a U-Net: one tensor a skip connection, outermost first; one to the mid block's output."""

    skips: tuple[Tensor, ...]
    mid: Tensor


class ControlNet:
    """A frozen ControlNet, which sees each frame alone.

    network  diffusers' `ControlNetModel`
    device   where it stays
    """

    def __init__(self, network: ControlNetModel, device: torch.device | None = None):
        self.network = network.eval().requires_grad_(False).to(device or torch.device("cpu"))

    @property
    def factor(self) -> int:
        """How many pixels of a control map lie along the side of a latent pixel."""
        return 2 ** (len(self.network.config.conditioning_embedding_out_channels) - 1)

    def check_beside(self, unet: nn.Module) -> None:
        """Raises InputError unless it was made for U-Nets of this shape."""
        require(
            isinstance(unet, UNet2DConditionModel),
            f"control_net goes beside an image U-Net, UNet2DConditionModel; got {type(unet).__name__}",
        )
        for name in SHARED:
            ours, theirs = self.network.config[name], unet.config[name]
            require(
                ours == theirs or [*sized(ours)] == [*sized(theirs)],
                f"control_net and model must have one {name}; they have {ours} and {theirs}. Take a ControlNet that "
                f"was trained beside this model",
            )

    @torch.no_grad()
    def residuals(
        self,
        z_t: Float[Tensor, "b c h w"],
        t: int | Int[Tensor, "..."],
        embeddings: Float[Tensor, "b l d"],
        control: Float[Tensor, "b 3 H W"],
        scale: float = 1.0,
    ) -> Residuals:
        """Of noisy latents under one control map each, RGB in [0, 1], times `scale`.

        Raises InputError for maps of another size than `factor` times the latent's.
        """
        height, width = (self.factor * side for side in z_t.shape[-2:])
        require(
            control.shape[-2:] == (height, width),
            f"control maps must have {height} x {width} pixels for this latent; got {tuple(control.shape[-2:])}",
        )
        dtype = self.network.dtype
        inputs = z_t.to(dtype), t, embeddings.to(dtype), control.to(dtype)
        skips, mid = self.network(*inputs, conditioning_scale=scale, return_dict=False)
        return Residuals(tuple(skips), mid)

    @contextlib.contextmanager
    def beside(self, unet: nn.Module, control: Float[Tensor, "f 3 H W"], scale: float = 1.0) -> Iterator[None]:
        """Within it every pass of the U-Net has the residuals added.

        The U-Net gets its frames as a batch in the order (b f); the f maps are the same for every b.
        """

        def add(unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            z_t, t = args
            maps = repeat(control, "f c H W -> (b f) c H W", b=len(z_t) // len(control))
            added = self.residuals(z_t, t, kwargs["encoder_hidden_states"], maps, scale)
            skips, mid = tuple(skip.to(z_t.dtype) for skip in added.skips), added.mid.to(z_t.dtype)
            return args, {**kwargs, "down_block_additional_residuals": skips, "mid_block_additional_residual": mid}

        handle = unet.register_forward_pre_hook(add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@contextlib.contextmanager
def adding_in_place(unet: nn.Module) -> Iterator[None]:
    """Within it the residual of the last skip connection reaches the mid block's input too.

    So it was in diffusers 0.14, whose U-Net added the residuals in place: its last skip is the mid block's input. To be
    entered within `ControlNet.beside`.
    """
    last: list[Tensor] = []

    def remember(unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        last[:] = kwargs["down_block_additional_residuals"][-1:]

    def add(mid_block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[0] + last.pop(), *args[1:]

    handles = unet.register_forward_pre_hook(remember, with_kwargs=True), unet.mid_block.register_forward_pre_hook(add)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sized(value: object) -> list | tuple:
    """A configuration's value as a sequence: diffusers takes one number for all blocks, or one a block."""
    return value if isinstance(value, (list, tuple)) else (value,)


@held
def load_control_net(
    path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    licence: str | None = None,
    download: str | None = None,
    architecture: str | None = None,
    random: bool = False,
    dtype: str = "float32",
    device: str = "auto",
) -> ControlNet:
    """A ControlNet in diffusers' layout, `config.json` and safetensors in one folder; the same arguments, held once.

    path       local folder, `pkg://package/folder`, or hub id; no remote code is run. HF_HUB_OFFLINE is honoured
    revision, variant  of a hub repository: a commit, and `fp16` where it has half-precision files; of a folder, what a
               run's configuration names: nothing here reads it
    licence, download  said when it is missing: its terms, and the size of what would be fetched
    architecture  folder with its `config.json` alone
    random     random weights at that architecture instead, to try memory and speed
    dtype      precision of the network
    device     `auto` is the GPU where there is one

    Raises InputError when it can't be read.
    """
    require(dtype in PRECISIONS, f"dtype must be one of {', '.join(PRECISIONS)}; got {dtype!r}")
    place, precision = resolve_device(device), getattr(torch, dtype)
    if random:
        require(architecture is not None, "random weights need an architecture: a folder with a config.json")
        return ControlNet(random_network(resolve_folder(architecture), precision), place)
    weights: dict[str, Any] = {"torch_dtype": precision, "use_safetensors": True}
    try:
        if not is_folder(path):
            weights |= {"revision": revision, "variant": variant}
        return ControlNet(ControlNetModel.from_pretrained(resolve_folder(path), **weights), place)
    except (OSError, ValueError) as error:
        fetch = how_to_fetch(path, ("config.json", "*.safetensors"), revision, download, licence)
        raise InputError(
            f"control_net path {path!r} can't be loaded: {error}\nIt must be a folder in diffusers' layout with "
            f"config.json and safetensors, or the hub id of one.{fetch}"
        ) from error


def random_network(folder: str, precision: torch.dtype) -> ControlNetModel:
    """Random weights (seed 0); those of the last, zero-initialised convolutions stay zero."""
    torch.manual_seed(0)
    return ControlNetModel.from_config(ControlNetModel.load_config(folder)).to(precision)
