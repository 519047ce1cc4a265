"""Attention maps on their way through a network, and those of the source video, kept from its inversion.

Axes beside those of `assd`: m heads, q queries, k keys.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor

from assd.diffusion.features import FeatureStore
from assd.diffusion.frames import FrameTable, attend, attention_map, checked, project, project_out, seen
from assd.errors import require

log = logging.getLogger(__name__)
Map: TypeAlias = Float[Tensor, "bf m q k"]  # softmax(scale Q K^T)
Change: TypeAlias = Callable[[str, Map], Map]  # (layer, its map) -> the map that it goes on with
Source: TypeAlias = Callable[[str], Map]  # layer -> the source video's map there
GIB = 2**30


@dataclass
class Tap:
    """Where a network's maps pass: within `tap.through(change)` each layer goes on with what `change` makes of its."""

    change: Change | None = None

    @contextlib.contextmanager
    def through(self, change: Change) -> Iterator[None]:
        """See the class."""
        self.change = change
        try:
            yield
        finally:
            self.change = None


class MappedAttention:
    """An attention processor whose map passes a tap.

    name     the layer's
    table    of self-attention, from which frames each frame's keys and values come; None for attention to the prompt
    largest  the most queries of a map that passes; with more, or when nobody taps, no map is held in memory
    """

    def __init__(self, name: str, tap: Tap, table: FrameTable | None, largest: int):
        self.name, self.tap, self.largest = name, tap, largest
        self.table = None if table is None else checked(table)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "bf q d"],
        encoder_hidden_states: Float[Tensor, "bf l c"] | None = None,
        *_: object,
        **__: object,
    ) -> Float[Tensor, "bf q d"]:
        """diffusers' protocol."""
        q, k, v = project(attn, hidden_states, encoder_hidden_states)
        if self.table is not None:
            k, v = seen(k, self.table), seen(v, self.table)
        if self.tap.change is None or q.shape[2] > self.largest:
            return project_out(attn, attend(q, k, v, attn.scale))
        return project_out(attn, self.tap.change(self.name, attention_map(q, k, attn.scale).to(v.dtype)) @ v)


@dataclass(frozen=True)
class SourceMaps:
    """The maps of the source video at each inversion step: kept, or computed once more where they are not.

    tap     of the network
    again   runs the network as an inversion step did, on the latent that it had
    layers  whose maps pass the tap
    wanted  whether an edit needs the map of a layer at an inversion step
    store   None keeps nothing
    device  on which the maps are needed
    """

    tap: Tap
    again: Callable[[int], object]
    layers: tuple[str, ...]
    wanted: Callable[[int, str], bool]
    store: FeatureStore | None
    device: torch.device

    def wanted_at(self, step: int) -> list[str]:
        """The layers whose maps an edit needs."""
        return [name for name in self.layers if self.wanted(step, name)]

    @contextlib.contextmanager
    def kept(self, step: int) -> Iterator[None]:
        """Within it the network runs an inversion step, and the wanted maps of that step are kept."""
        store, wanted = self.store, self.wanted_at(step)

        def keep(name: str, maps: Map) -> Map:
            if store is not None and name in wanted:
                store.put(step, name, maps)
            return maps

        with self.tap.through(keep) if store is not None else contextlib.nullcontext():
            yield

    def at(self, step: int) -> Source:
        """The wanted maps of an inversion step, a layer at a time."""
        wanted, store = self.wanted_at(step), self.store
        if store is not None and all((step, name) in store for name in wanted):
            return lambda name: store.get(step, name, self.device)
        found: dict[str, Map] = {}

        def take(name: str, maps: Map) -> Map:
            if name in wanted:
                found[name] = maps
            return maps

        with self.tap.through(take):
            self.again(step)
        return found.__getitem__


def check_store(nbytes: int, store: FeatureStore, limit_gib: float) -> None:
    """Says how large the store will be before it is filled. Raises InputError when that is more than it may be."""
    log.info("attention maps of the source video: %.2f GiB, in the place %r", nbytes / GIB, store.place)
    require(
        nbytes <= limit_gib * GIB,
        f"the source video's attention maps take {nbytes / GIB:.1f} GiB, and store_limit_gib is {limit_gib:g}: lower "
        "num_frames, sampling_steps, self_replace_steps or max_side, set store=recompute, which computes them once "
        "more instead, or raise the limit",
    )
    store.check_room(nbytes, "keeping the source video's attention maps")
