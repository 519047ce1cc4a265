"""Plug-and-Play injection (Tumanyan et al. 2023): in some layers and steps the edits have the source's features."""

from collections.abc import Sequence
from dataclasses import dataclass

from einops import repeat
from torch import Tensor

from assd.diffusion.features import Change, named, queries_and_keys
from assd.diffusion.model import Model, check_self_attention
from assd.errors import require
from assd.models.unet import convolution_before


@dataclass(frozen=True)
class Injection:
    """Which layers are injected, and at how many of the first sampling steps.

    attention     self-attention layers whose Q and K are the source's; None is the published rule, the decoder's but
                  the first: with Stable Diffusion 1.x Plug-and-Play's layers 4 to 11
    convolutions  whose outputs are the source's; None is the published rule, the second convolution of the ResNet
                  block that runs before the first of the attention layers: there Plug-and-Play's layer 4

    Raises InputError for a layer that the network lacks.
    """

    model: Model
    attention_steps: int
    convolution_steps: int
    attention: Sequence[str] | None = None
    convolutions: Sequence[str] | None = None

    def __post_init__(self):
        require(
            self.attention is not None or self.attention_steps == 0 or bool(self.attention_layers),
            "Plug-and-Play needs a decoder with at least two self-attention layers; "
            f"model has {len(self.model.layers.decoder_self_attention)}: name others in injected_attention",
        )
        check_self_attention(self.model, "injected_attention", self.attention_layers)
        named(self.model.network, self.convolution_layers, "injected_convolutions")

    @property
    def attention_layers(self) -> tuple[str, ...]:
        """The chosen ones."""
        if self.attention is not None:
            return tuple(self.attention)
        return self.model.layers.decoder_self_attention[1:]

    @property
    def convolution_layers(self) -> tuple[str, ...]:
        """The chosen ones."""
        if self.convolutions is not None:
            return tuple(self.convolutions)
        return tuple(convolution_before(name) for name in self.attention_layers[:1])

    def layers(self, step: int) -> tuple[str, ...]:
        """Those whose outputs are the source's at a sampling step. Without self-attention Q and K do not matter."""
        convolutions = self.convolution_layers if step < self.convolution_steps else ()
        attention = self.attention_layers if step < self.attention_steps else ()
        return convolutions + queries_and_keys(attention)


def from_source(streams: int) -> Change:
    """Every stream goes on with what the first one, the source, has; a batch is (streams, frames)."""

    def injected(layer: str, output: Tensor) -> Tensor:
        return repeat(output[: len(output) // streams], "f ... -> (s f) ...", s=streams)

    return injected
