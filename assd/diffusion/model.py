"""What a model is: a frozen latent diffusion model as every method and loss component sees it.

Nothing outside `assd.models` knows more of a network than this. An image model is one whose frames do not see each
other; a model that compresses time has fewer latent frames f than pixel frames n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assd.data.pairs import Canvas
from assd.diffusion.schedule import Prediction, Schedule
from assd.errors import require, some

Embeddings: TypeAlias = Any  # of prompts: what `embed` returns and `predict` takes, and nobody else looks into


@dataclass(frozen=True)
class LatentSpace:
    """How an autoencoder's output becomes a latent of about unit variance: Z = (raw - shift) scale.

    channels      c
    scale, shift  one number, or one a channel
    """

    channels: int
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0

    def normalised(self, raw: Float[Tensor, "c f h w"]) -> Float[Tensor, "c f h w"]:
        """The latent."""
        return (raw if self.shift == 0.0 else raw - per_channel(self.shift, raw)) * per_channel(self.scale, raw)

    def restored(self, Z: Float[Tensor, "c f h w"]) -> Float[Tensor, "c f h w"]:
        """What the autoencoder decodes."""
        raw = Z / per_channel(self.scale, Z)
        return raw if self.shift == 0.0 else raw + per_channel(self.shift, Z)


def per_channel(statistic: float | tuple[float, ...], like: Float[Tensor, "c f h w"]) -> "float | Tensor":
    """One number as it is; one a channel as a tensor (c, 1, 1, 1)."""
    if isinstance(statistic, float):
        return statistic
    return torch.tensor(statistic, dtype=like.dtype, device=like.device)[:, None, None, None]


@dataclass(frozen=True)
class AttentionLayers:
    """The names of a network's attention layers by what they do, each from its input to its output.

    A name is the module's path in `model.network`. A network that lacks a kind has none of it.
    """

    self_attention: tuple[str, ...] = ()  # within one frame
    cross_attention: tuple[str, ...] = ()  # to the prompt
    temporal_attention: tuple[str, ...] = ()  # across frames
    decoder_self_attention: tuple[str, ...] = ()  # the part of `self_attention` in the decoder


@runtime_checkable
class Model(Protocol):
    """A frozen latent diffusion model.

    canvas      length and size of the videos it works at; None for an image model, which takes any
    latents     its latent space
    schedule    alpha_t and sigma_t
    prediction  what its network predicts
    network     the network, whose layers `layers` names
    device      where its latents lie
    """

    canvas: Canvas | None
    latents: LatentSpace
    schedule: Schedule
    prediction: Prediction
    network: nn.Module
    layers: AttentionLayers
    device: torch.device

    def check_prompt(self, prompt: str) -> None:
        """Raises InputError for a prompt that the model cannot read; warns when it reads only a part."""
        ...

    def encode(self, frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "c f h w"]:
        """Pixels in [-1, 1] to the latent, in float32."""
        ...

    def decode(self, Z: Float[Tensor, "c f h w"]) -> Float[Tensor, "n 3 H W"]:
        """The latent to pixels in [-1, 1], in float32 on the CPU."""
        ...

    def embed(self, prompts: tuple[str, ...]) -> Embeddings:
        """One embedding a prompt, in this order."""
        ...

    def predict(self, z_t: Float[Tensor, "b c f h w"], t: int, embeddings: Embeddings) -> Float[Tensor, "b c f h w"]:
        """What the network was trained to predict, as `prediction` says, in float32."""
        ...


def check_self_attention(model: Model, argument: str, names: Sequence[str]) -> None:
    """Raises InputError where an argument names layers that are no self-attention of the model."""
    known = model.layers.self_attention
    wrong = [name for name in names if name not in known]
    require(
        not wrong, f"{argument} must name self-attention layers of the model, {some(known)}; got {', '.join(wrong)}"
    )


def canvas_of(model: Model) -> Canvas:
    """The model's own canvas. Raises InputError for an image model, which has none."""
    require(model.canvas is not None, "method.model must be a video model, as model=... brings one; got an image model")
    assert model.canvas is not None
    return model.canvas


def check_shares_latents(model: Model, image_model: Model) -> None:
    """Raises InputError unless both read the same latents under the same noise schedule, as one gradient needs.

    Of the latent space its channels and statistics are compared, not the autoencoder's weights: a model that reads
    another model's latents has none.
    """
    ours, theirs = model.latents, image_model.latents
    require(
        ours.channels == theirs.channels,
        f"model and image_model must have one latent space; they have {ours.channels} and {theirs.channels} channels",
    )
    require(
        (ours.scale, ours.shift) == (theirs.scale, theirs.shift),
        f"model and image_model must share an autoencoder; their scaling factors are {ours.scale} and {theirs.scale}, "
        f"their shifts {ours.shift} and {theirs.shift}",
    )
    require(
        model.schedule.agrees_with(image_model.schedule),
        "model and image_model must have one noise schedule: at one t their Z_t differ. "
        "Take models of one family, or loss=[assd] without joint guidance",
    )
