"""Attention processors on a network's named layers, and off them again."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import nn

from assd.errors import InputError

Processor = Any  # of diffusers: called as (attn, hidden_states, encoder_hidden_states, ...), it gives hidden states


@contextlib.contextmanager
def processors_on(network: nn.Module, processors: Mapping[str, Processor]) -> Iterator[None]:
    """Within it each named layer of the network computes its attention by the given processor.

    On exit, also after an error, the processors that were there before are back. Raises InputError for a layer that
    the network does not have.
    """
    layers = {name: layer(network, name) for name in processors}
    before = {name: module.processor for name, module in layers.items()}
    try:
        for name, module in layers.items():
            module.set_processor(processors[name])
        yield
    finally:
        for name, module in layers.items():
            module.set_processor(before[name])


def layer(network: nn.Module, name: str) -> Attention:
    """An attention layer by its path. Raises InputError where there is none."""
    found = dict(network.named_modules()).get(name)
    if not isinstance(found, Attention):
        raise InputError(f"{type(network).__name__} has no attention layer {name!r}")
    return found
