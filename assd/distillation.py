"""Score distillation: the video's latent is optimised directly, by the sum of the loss components' gradients."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from assd.data import Prompts
from assd.draw import check_timesteps, draw_step
from assd.errors import DivergedError, require
from assd.losses import LossComponent
from assd.models import LatentDiffusion

GRADIENT_SCALES: dict[str, Callable[[int, int], float]] = {
    "none": lambda h, w: 1.0,
    "dds": lambda h, w: 2000 / (h * w),  # the DDS reference code
}


@dataclass
class State:
    """Everything an interrupted edit needs to go on: steps done, latents, optimizer."""

    step: int
    Z: Float[Tensor, "c n h w"]
    optimizer: dict[str, Any] = field(default_factory=dict)


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
    attention         context manager over the U-Net: weighted attention fusion, or nothing
    optimizer         given the parameters, an optimizer: any of torch.optim
    timesteps         first and last t, drawn uniformly (DDS reference code: 50..948)
    gradient_scale    `none` (1), or `dds`: 2000 / (h w), the factor in the DDS reference code
    checkpoint_every  steps between checkpoints; the gradient is checked to be finite as often
    """

    model: LatentDiffusion
    losses: dict[str, LossComponent]
    attention: Callable[[torch.nn.Module], contextlib.AbstractContextManager]
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    seed: int
    num_steps: int
    timesteps: Sequence[int]
    gradient_scale: str
    checkpoint_every: int

    def __post_init__(self):
        require(self.num_steps >= 1, f"num_steps must be >= 1; got {self.num_steps}")
        require(self.checkpoint_every >= 1, f"checkpoint_every must be >= 1; got {self.checkpoint_every}")
        require(bool(self.losses), "loss is empty: choose at least one component, such as loss=[assd]")
        require(
            self.gradient_scale in GRADIENT_SCALES,
            f"gradient_scale must be one of {', '.join(GRADIENT_SCALES)}; got {self.gradient_scale!r}",
        )
        check_timesteps(self.timesteps, len(self.model.alphas_cumprod))

    @torch.no_grad()
    def __call__(
        self,
        frames: Float[Tensor, "n 3 H W"],
        prompts: Prompts,
        pair_id: str,
        resume: State | None = None,
        checkpoint: Callable[[State, list[dict]], None] = lambda state, steps: None,
        advance: Callable[[int], None] = lambda step: None,
    ) -> Edit:
        """Edits a video from `prompts.source` to `prompts.target`, from its beginning or from `resume`.

        `checkpoint` receives the state and the curves of the steps since the last one, one dictionary a step (`step`,
        `t`, `gradient_norm`, `seconds`, and what the components report under their names); `advance` the number of
        steps done. A state's tensors are the live ones: a checkpoint that keeps them in memory copies them.

        Raises DivergedError when the gradient is NaN or Inf; checkpoints before it stay.
        """
        for prompt in prompts:
            self.model.check_prompt(prompt)
        Z_ref = self.model.encode(frames)
        Z = Z_ref.clone() if resume is None else resume.Z.to(Z_ref.device)
        optimizer = self.optimizer([Z])
        if resume is not None:
            optimizer.load_state_dict(resume.optimizer)
        scale = GRADIENT_SCALES[self.gradient_scale](*Z.shape[-2:])

        curves: list[dict] = []
        with self.attention(self.model.unet):
            for step in range(resume.step if resume else 0, self.num_steps):
                started = time.perf_counter()
                draw = draw_step(self.seed, pair_id, step, Z, self.timesteps)
                parts = [loss(Z, Z_ref, prompts, draw) for loss in self.losses.values()]
                gradient = scale * sum(part.gradient for part in parts)  # the total gradient, Eq. 10
                Z.grad = gradient
                optimizer.step()

                curve = {"step": step, "t": draw.t, "gradient_norm": gradient.norm()}
                for name, part in zip(self.losses, parts):
                    curve |= {f"{name}.{key}": value for key, value in part.curves.items()}
                curves.append(curve | {"seconds": time.perf_counter() - started})
                if (step + 1) % self.checkpoint_every == 0 or step + 1 == self.num_steps:
                    checkpoint(State(step + 1, Z, optimizer.state_dict()), finite(curves, pair_id))
                    curves = []
                advance(step + 1)
        return Edit(Z_ref, Z, self.model.decode(Z), self.model.decode(Z_ref))


def finite(curves: list[dict], pair_id: str) -> list[dict]:
    """The curves as plain numbers, read from the device once; raises DivergedError at the first that is no number."""
    plain = [{key: float(v) if isinstance(v, Tensor) else v for key, v in curve.items()} for curve in curves]
    for curve in plain:
        if not curve["gradient_norm"] < float("inf"):
            raise DivergedError(
                f"pair {pair_id!r}: the gradient is {curve['gradient_norm']} at step {curve['step']}, "
                f"t = {curve['t']}. The checkpoint before it is kept. "
                f"Try a smaller optimizer.lr, or dtype float32 in the model"
            )
    return plain
