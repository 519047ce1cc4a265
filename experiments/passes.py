"""The passes of networks that an edit is made of: noted while it runs, and made again by the bare networks."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assd.models import LatentDiffusion


@dataclass(frozen=True)
class Pass:
    """One call of a network.

    args, kwargs  what it got; tensors on torch's meta device, which have shapes and no values
    trained       the names of its parameters that a gradient was wanted of
    seconds       of the forward pass, without those of networks that were called within
    """

    network: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    trained: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def batch(self) -> int:
        """Of an image network the frames of all branches, of a video network the branches."""
        return len(self.args[0])

    def again(self) -> None:
        """The same call on numbers drawn anew; with its backward pass to what was trained, if the network has it.

        What a method adds to the network while it edits is not there, and no gradient goes to it.
        """
        network, own = self.network, dict(self.network.named_parameters())
        device, trained = next(network.parameters()).device, [own[name] for name in self.trained if name in own]
        args, kwargs = each(self.args, self.kwargs, lambda x: drawn(x, device))
        with torch.set_grad_enabled(bool(trained)), wanting_gradients(trained):
            output = network(*args, **kwargs)
            if trained:
                torch.autograd.grad(output.sample.float().square().mean(), trained)


@contextlib.contextmanager
def noting_passes(networks: Iterable[nn.Module], now: Callable[[], float] = time.perf_counter) -> Iterator[list[Pass]]:
    """Within it each call of one of these networks is appended to the list when it ends; `now` is the clock."""
    passes: list[Pass] = []
    running: list[dict[str, Any]] = []  # the calls that have begun, each within the one before it

    def before(network: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        args, kwargs = each(args, kwargs, lambda x: x.detach().to("meta"))
        running.append({"args": args, "kwargs": kwargs, "trained": wanted(network), "within": 0.0, "began": now()})

    def after(network: nn.Module, *_: object) -> None:
        call = running.pop()
        took, within = now() - call.pop("began"), call.pop("within")
        passes.append(Pass(network, **call, seconds=took - within))
        if running:
            running[-1]["within"] += took

    with contextlib.ExitStack() as stack:
        for network in networks:
            stack.enter_context(network.register_forward_pre_hook(before, with_kwargs=True))
            stack.enter_context(network.register_forward_hook(after))
        yield passes


def models_of(method: Any) -> dict[str, LatentDiffusion]:
    """The models that a method predicts with, `video` and `image`."""
    losses = getattr(method, "losses", {})  # of score distillation, each with its model
    return {"video" if m.sees_time else "image": m for m in (method.model, *(loss.model for loss in losses.values()))}


def networks_of(method: Any) -> dict[str, nn.Module]:
    """The networks that a method predicts with, by what they are."""
    networks = {f"{kind} U-Net": model.network for kind, model in models_of(method).items()}
    control_net = getattr(method, "control_net", None)
    return networks if control_net is None else {**networks, "ControlNet": control_net.network}


def wanted(network: nn.Module) -> tuple[str, ...]:
    """The names of the parameters that a gradient is wanted of now."""
    if not torch.is_grad_enabled():
        return ()
    return tuple(name for name, parameter in network.named_parameters() if parameter.requires_grad)


@contextlib.contextmanager
def wanting_gradients(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within it a gradient is wanted of these frozen parameters."""
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


def each(args: tuple, kwargs: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> tuple[tuple, dict[str, Any]]:
    """A call's arguments with every tensor changed."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, Tensor) else value

    return tuple(map(changed, args)), {name: changed(value) for name, value in kwargs.items()}


def drawn(like: Tensor, device: torch.device) -> Tensor:
    """Unit noise of this shape and precision; of whole numbers, which are timesteps, ones."""
    values = torch.empty_like(like, device=device)
    return values.normal_() if like.is_floating_point() else values.fill_(1)
