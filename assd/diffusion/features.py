"""Features of a network: tapped at named layers and steps, kept, and injected later.

A feature is what a module puts out, and its name is the module's path: `up_blocks.1.resnets.1.conv2`,
`up_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q`. So the queries and keys of an attention layer are features
like any other, whichever processor computes the attention, as long as it calls the layer's `to_q` and `to_k`.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from assd.errors import InputError, require, some

Change = Callable[[str, Tensor], Tensor]  # (layer, what it puts out) -> what the network goes on with
PLACES = ("device", "cpu", "disk")


def queries_and_keys(attention: Iterable[str]) -> tuple[str, ...]:
    """The names of the features Q and K of these attention layers, before they are split into heads."""
    return tuple(f"{layer}.{projection}" for layer in attention for projection in ("to_q", "to_k"))


@contextlib.contextmanager
def outputs_changed(network: nn.Module, layers: Iterable[str], change: Change) -> Iterator[None]:
    """Within it the network goes on with `change(layer, output)` instead of each named layer's output.

    On exit, also after an error, the layers are as before. Raises InputError for a layer that the network lacks.
    """
    with contextlib.ExitStack() as hooks:
        for layer, module in named(network, layers).items():

            def hook(module: nn.Module, inputs: tuple, output: Tensor, layer: str = layer) -> Tensor:
                return change(layer, output)

            hooks.enter_context(module.register_forward_hook(hook))
        yield


def named(network: nn.Module, layers: Iterable[str], argument: str = "layers") -> dict[str, nn.Module]:
    """Modules by their paths. Raises InputError, which names the argument they stand in, for one the network lacks."""
    modules, layers = dict(network.named_modules()), tuple(layers)
    if missing := [layer for layer in layers if layer not in modules]:
        alike = [name for name in modules if name.rpartition(".")[2] == missing[0].rpartition(".")[2]]
        raise InputError(
            f"{argument} must name layers of the {type(network).__name__}, {some(alike or list(modules)[1:])}; "
            f"got {missing[0]!r}"
        )
    return {layer: modules[layer] for layer in layers}


class FeatureStore:
    """Tensors by (step, layer), copied to where there is room for them.

    place   `device` keeps a tensor where it is, `cpu` in main memory, `disk` as a safetensors file
    folder  within which `disk` makes a folder of its own, which goes with the store; None is the system's for
            temporary files
    """

    def __init__(self, place: str = "cpu", folder: Path | None = None):
        require(place in PLACES, f"the place of a feature store must be one of {', '.join(PLACES)}; got {place!r}")
        self.place = place
        self.nbytes = 0  # of everything in it
        self._kept: dict[tuple[int, str], Tensor | Path] = {}
        self._folder = tempfile.TemporaryDirectory("-features", dir=folder) if place == "disk" else None

    def __contains__(self, key: tuple[int, str]) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, step: int, layer: str, feature: Float[Tensor, "..."]) -> None:
        """Keeps a copy, in place of what was under (step, layer) before."""
        self.discard(step, layer)
        device = feature.device if self.place == "device" else torch.device("cpu")
        kept = feature.detach().to(device, copy=True, memory_format=torch.contiguous_format)
        self._kept[step, layer] = self._written(kept, step, layer) if self._folder else kept
        self.nbytes += feature.nbytes

    def get(self, step: int, layer: str, device: torch.device | None = None) -> Float[Tensor, "..."]:
        """What was put there, on `device` or where the store keeps it. Raises KeyError where nothing was."""
        if (step, layer) not in self._kept:
            raise KeyError(f"the feature store has nothing of {layer!r} at step {step}")
        kept = self._kept[step, layer]
        feature = kept if isinstance(kept, Tensor) else load_file(kept)["feature"]
        return feature if device is None else feature.to(device)

    def discard(self, step: int, layer: str) -> None:
        """Forgets what was under (step, layer), if anything was."""
        if (step, layer) in self._kept:
            self.nbytes -= self.get(step, layer).nbytes
            kept = self._kept.pop((step, layer))
            if isinstance(kept, Path):
                kept.unlink()

    def check_room(self, nbytes: int, what: str) -> None:
        """Raises InputError when so many bytes more exceed what the place has: free on disk or GPU, all of a CPU's."""
        room = self.room()
        require(
            nbytes <= room,
            f"{what} takes {nbytes / 2**30:.1f} GiB, and the feature store's place, {self.place}, has "
            f"{room / 2**30:.1f} GiB: take fewer frames or steps, or another of {', '.join(PLACES)}",
        )

    def room(self) -> int:
        """In bytes."""
        if self._folder:
            return shutil.disk_usage(self._folder.name).free
        if self.place == "device" and torch.cuda.is_available():
            return torch.cuda.mem_get_info()[0]
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def _written(self, feature: Tensor, step: int, layer: str) -> Path:
        assert self._folder is not None
        path = Path(self._folder.name) / f"{step}.{layer}.safetensors"
        save_file({"feature": feature}, path)
        return path


@dataclass(frozen=True)
class Features:
    """The features of a network that one pass leaves to another: `with features.tapped(step)`, then `injected(step)`.

    network  whose layers `layers` names, by module path
    store    where they are until then
    largest  the cap on resolution: a feature with more tokens (h w of a feature map) is neither kept nor injected;
             None is no cap
    """

    network: nn.Module
    layers: tuple[str, ...]
    store: FeatureStore
    largest: int | None = None

    def __post_init__(self):
        named(self.network, self.layers)

    @contextlib.contextmanager
    def tapped(self, step: int) -> Iterator[None]:
        """Within it the named layers' outputs are kept under `step`; the network's result is not changed."""

        def keep(layer: str, output: Tensor) -> Tensor:
            if self.largest is None or tokens(output) <= self.largest:
                self.store.put(step, layer, output)
            return output

        with outputs_changed(self.network, self.layers, keep):
            yield

    @contextlib.contextmanager
    def injected(self, step: int) -> Iterator[None]:
        """Within it the outputs kept under `step` replace the named layers' outputs.

        A batch that is several times as large, such as the two halves of classifier-free guidance, gets the feature in
        every part. Layers of which nothing was kept, because of the cap, go on with their own output.
        """

        def replaced(layer: str, output: Tensor) -> Tensor:
            if (step, layer) not in self.store:
                return output
            feature = self.store.get(step, layer, output.device)
            return repeat(feature, "b ... -> (parts b) ...", parts=len(output) // len(feature)).to(output.dtype)

        with outputs_changed(self.network, self.layers, replaced):
            yield

    def nbytes_of(self, run: Callable[[], object]) -> int:
        """Bytes of one step's features, known before any is kept.

        `run` calls the network once. One frame of many is enough, since a feature's size is proportional to the batch.
        """
        sizes: list[int] = []

        def measure(layer: str, output: Tensor) -> Tensor:
            if self.largest is None or tokens(output) <= self.largest:
                sizes.append(output.nbytes)
            return output

        with outputs_changed(self.network, self.layers, measure):
            run()
        return sum(sizes)


def tokens(feature: Float[Tensor, "b ..."]) -> int:
    """Positions of a feature: h w of a map "b c h w", l of a sequence "b l d"."""
    return feature[0, 0].numel() if feature.ndim == 4 else feature.shape[1]
