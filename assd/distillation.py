"""Score distillation: the video's latent is optimised directly, by the sum of the loss components' gradients."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from assd.draw import check_timesteps, draw_step
from assd.errors import DivergedError, require
from assd.losses import Branches, Contribution, LossComponent
from assd.models import LatentDiffusion

GRADIENT_SCALES: dict[str, Callable[[int, int], float]] = {
    "none": lambda h, w: 1.0,
    "dds": lambda h, w: 2000 / (h * w),  # the DDS reference code
}


@dataclass
class State:
    """Everything an interrupted edit needs to go on: steps done, latent, optimizer."""

    step: int
    Z: Float[Tensor, "c n h w"]
    optimizer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What one video shall become.

    target      the prompt y*
    resume      where an interrupted edit stopped; None is the beginning
    checkpoint  receives the state and the curves of the steps since the last one, one dictionary a step (`step`, `t`,
                `gradient_norm`, what the components report under their names, and `seconds`, the mean since the last
                checkpoint). A state's tensors are the live ones: a checkpoint that keeps them in memory copies them
    """

    target: str
    resume: State | None = None
    checkpoint: Callable[[State, list[dict]], None] = lambda state, curves: None


@dataclass(frozen=True)
class Edit:
    """What a method returns: latents, and the pixels that Z and Z_ref decode to, in [-1, 1]."""

    Z_ref: Float[Tensor, "c n h w"]
    Z: Float[Tensor, "c n h w"]
    frames: Float[Tensor, "n 3 H W"]
    reconstruction: Float[Tensor, "n 3 H W"]


@dataclass(frozen=True)
class ScoreDistillation:
    """Zero-shot video editing by score distillation: from Z = Z_ref, `num_steps` optimizer steps along the gradient.

    model             text-to-video model, which encodes and decodes
    losses            components by name; their gradients are summed
    attention         context manager over the U-Net and its branches: weighted attention fusion, or nothing
    optimizer         given the parameters, an optimizer: any of torch.optim
    timesteps         first and last t, drawn uniformly (DDS reference code: 50..948)
    gradient_scale    `none` (1), or `dds`: 2000 / (h w), the factor in the DDS reference code
    checkpoint_every, checkpoint_seconds  a checkpoint follows the last one after so many steps, or so much time; the
                      gradient is checked to be finite, and curves are handed over, as often
    """

    model: LatentDiffusion
    losses: dict[str, LossComponent]
    attention: Callable[[torch.nn.Module, int], contextlib.AbstractContextManager]
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    seed: int
    num_steps: int
    timesteps: Sequence[int]
    gradient_scale: str
    checkpoint_every: int
    checkpoint_seconds: float

    def __post_init__(self):
        require(self.num_steps >= 1, f"num_steps must be >= 1; got {self.num_steps}")
        require(self.checkpoint_every >= 1, f"checkpoint_every must be >= 1; got {self.checkpoint_every}")
        require(bool(self.losses), "loss is empty: choose at least one component, such as loss=[assd]")
        require(
            self.gradient_scale in GRADIENT_SCALES,
            f"gradient_scale must be one of {', '.join(GRADIENT_SCALES)}; got {self.gradient_scale!r}",
        )
        check_timesteps(self.timesteps, len(self.model.alphas_cumprod))
        for loss in self.losses.values():
            if (other := getattr(loss, "model", self.model)) is not self.model:
                self.model.check_shares_latents(other)

    @torch.no_grad()
    def __call__(
        self,
        frames: Float[Tensor, "n 3 H W"],
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Callable[[int], None] = lambda step: None,
    ) -> list[Edit]:
        """Edits a video, which the prompt `source` describes, to each request's target.

        Several requests share the reference branch's pass; their results are those of separate calls to rounding.
        `clip` names the video and seeds the noise; `advance` receives the number of steps done.

        Raises InputError when the requests resume at different steps, and DivergedError when a gradient is NaN or Inf;
        checkpoints before it stay.
        """
        begin, *others = {request.resume.step if request.resume else 0 for request in requests}
        require(
            not others, f"requests that are edited together must resume at one step; got {sorted([begin, *others])}"
        )
        prompts = (*(request.target for request in requests), source)
        for prompt in prompts:
            self.model.check_prompt(prompt)
        Z_ref = self.model.encode(frames)
        begun = [request.resume.Z.to(Z_ref.device) if request.resume else Z_ref for request in requests]
        branches = Branches(torch.stack([*begun, Z_ref]), prompts)
        optimizers = [self.optimizer([Z_i]) for Z_i in branches.Z]  # views: a step on Z_i is a step of its branch
        for optimizer, request in zip(optimizers, requests):
            if request.resume:
                optimizer.load_state_dict(request.resume.optimizer)
        scale = GRADIENT_SCALES[self.gradient_scale](*Z_ref.shape[-2:])

        curves: list[list[dict]] = [[] for _ in requests]  # since the last checkpoint
        last_checkpoint = time.perf_counter()
        with self.attention(self.model.unet, len(prompts)):
            for step in range(begin, self.num_steps):
                draw = draw_step(self.seed, clip, step, Z_ref, self.timesteps)
                parts = {name: loss(branches, draw) for name, loss in self.losses.items()}
                gradient = scale * sum(part.gradient for part in parts.values())  # the total gradient, Eq. 10
                for i, (optimizer, of_edit) in enumerate(zip(optimizers, curves)):
                    descend(optimizer, gradient[i])
                    of_edit.append({"step": step, "t": draw.t, "gradient_norm": gradient[i].norm(), **told(parts, i)})

                is_due = (step + 1) % self.checkpoint_every == 0 or step + 1 == self.num_steps
                if is_due or time.perf_counter() - last_checkpoint > self.checkpoint_seconds:
                    plain = [finite(of_edit, clip, r.target) for of_edit, r in zip(curves, requests)]
                    seconds = (time.perf_counter() - last_checkpoint) / len(curves[0])
                    for request, Z_i, optimizer, of_edit in zip(requests, branches.Z, optimizers, plain):
                        state = State(step + 1, Z_i, optimizer.state_dict())
                        request.checkpoint(state, [curve | {"seconds": seconds} for curve in of_edit])
                    curves, last_checkpoint = [[] for _ in requests], time.perf_counter()
                advance(step + 1)
        reconstruction = self.model.decode(Z_ref)
        return [Edit(Z_ref, Z_i, self.model.decode(Z_i), reconstruction) for Z_i in branches.Z]


def descend(optimizer: torch.optim.Optimizer, gradient: Float[Tensor, "c n h w"]) -> None:
    """One step of an optimizer over a single latent."""
    (group,) = optimizer.param_groups
    (Z_i,) = group["params"]
    Z_i.grad = gradient
    optimizer.step()


def told(parts: dict[str, Contribution], i: int) -> dict[str, Float[Tensor, ""]]:
    """What the components say of edit `i`, under their names."""
    return {f"{name}.{key}": value[i] for name, part in parts.items() for key, value in part.curves.items()}


def finite(curves: list[dict], clip: str, target: str) -> list[dict]:
    """The curves as plain numbers, read from the device at once; raises DivergedError at the first that is none."""
    numbers = iter(torch.stack([v for curve in curves for v in curve.values() if isinstance(v, Tensor)]).tolist())
    plain = [{key: next(numbers) if isinstance(v, Tensor) else v for key, v in curve.items()} for curve in curves]
    for curve in plain:
        if not curve["gradient_norm"] < float("inf"):
            raise DivergedError(
                f"clip {clip!r}, {target!r}: the gradient is {curve['gradient_norm']} at step {curve['step']}, "
                f"t = {curve['t']}. The checkpoint before it is kept. "
                f"Try a smaller optimizer.lr, or dtype float32 in the model"
            )
    return plain
