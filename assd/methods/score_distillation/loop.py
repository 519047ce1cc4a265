"""Score distillation: the video's latent is optimised directly, by the sum of the loss components' gradients."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Canvas, Footage
from assd.diffusion.draw import check_timesteps, draw_step
from assd.diffusion.model import Model, canvas_of, check_shares_latents
from assd.errors import InputError, require
from assd.methods.method import Advance, Checkpoint, Edit, Request, check_prompts, decoded, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints
from assd.methods.score_distillation.losses import Branches, Contribution, LossComponent

GRADIENT_SCALES: dict[str, Callable[[int, int], float]] = {
    "none": lambda h, w: 1.0,
    "dds": lambda h, w: 2000 / (h * w),  # the DDS reference code
}
ADVICE = "Try a smaller optimizer.lr, or dtype float32 in the model"
OPTIMIZER = "optimizer."  # before the names of an optimizer's state in a checkpoint


@dataclass(frozen=True)
class ScoreDistillation:
    """Zero-shot video editing by score distillation: from Z = Z_ref, `num_steps` optimizer steps along the gradient.

    model             text-to-video model, which encodes and decodes
    losses            components by name; their gradients are summed
    attention         context manager over the model and the number of branches: weighted attention fusion, or nothing
    optimizer         given the parameters, an optimizer: any of torch.optim
    timesteps         first and last t, drawn uniformly (DDS reference code: 50..948)
    gradient_scale    `none` (1), or `dds`: 2000 / (h w), the factor in the DDS reference code
    checkpoint_every, checkpoint_seconds  a checkpoint follows the last one after so many steps, or so much time
    """

    model: Model
    losses: dict[str, LossComponent]
    attention: Callable[[Model, int], AbstractContextManager]
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    seed: int
    num_steps: int
    timesteps: Sequence[int]
    gradient_scale: str
    checkpoint_every: int
    checkpoint_seconds: float

    def __post_init__(self):
        require(self.num_steps >= 1, f"num_steps must be >= 1; got {self.num_steps}")
        require(bool(self.losses), "loss is empty: choose at least one component, such as loss=[assd]")
        require(
            self.gradient_scale in GRADIENT_SCALES,
            f"gradient_scale must be one of {', '.join(GRADIENT_SCALES)}; got {self.gradient_scale!r}",
        )
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)
        check_timesteps(self.timesteps, len(self.model.schedule))
        self.check_optimizer()
        for loss in self.losses.values():
            if (other := getattr(loss, "model", self.model)) is not self.model:
                check_shares_latents(self.model, other)

    def check_optimizer(self) -> None:
        """Raises InputError where the optimizer refuses its options, before anything is edited."""
        try:
            self.optimizer([torch.zeros(1, requires_grad=True)])
        except (TypeError, ValueError) as error:
            options = getattr(self.optimizer, "keywords", "these options")
            raise InputError(f"optimizer can't be made with {options} ({error}): see conf/optimizer/") from error

    @property
    def canvas(self) -> Canvas:
        """The model's."""
        return canvas_of(self.model)

    @torch.no_grad()
    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """See `assd.methods.method.Method`. The edits share the reference branch's pass."""
        recorder = Recorder.of(self, requests, clip, advance, ADVICE)
        prompts = self.checked_prompts(source, requests)
        Z_ref = self.model.encode(footage.frames)
        branches = self.branches(Z_ref, prompts, requests)
        optimizers = [self.resumed_optimizer(Z_i, request) for Z_i, request in zip(branches.Z, requests)]
        scale = GRADIENT_SCALES[self.gradient_scale](*Z_ref.shape[-2:])

        with self.attention(self.model, len(branches.prompts)):
            for step, _ in recorder.phase(range(self.num_steps)):
                draw = draw_step(self.seed, clip, step, Z_ref, self.timesteps)
                parts = {name: loss(branches, draw) for name, loss in self.losses.items()}
                gradient = scale * total(parts)  # the total gradient, Eq. 10
                for optimizer, gradient_i in zip(optimizers, gradient):
                    descend(optimizer, gradient_i)
                measured = [
                    {"t": draw.t, "gradient_norm": gradient_i.norm(), **told(parts, i)}
                    for i, gradient_i in enumerate(gradient)
                ]
                recorder.note(step, measured, lambda i: state(branches.Z[i], optimizers[i]))
        return decoded(self.model, Z_ref, branches.Z)

    def checked_prompts(self, source: str, requests: Sequence[Request]) -> tuple[str, ...]:
        """One a branch, the source's last. Raises InputError for one that a model cannot read, negative ones too."""
        check_prompts(self.model, source, requests)
        for loss in self.losses.values():
            if negative := getattr(loss, "negative_prompt", None):
                getattr(loss, "model", self.model).check_prompt(negative)
        return (*(request.target for request in requests), source)

    def branches(
        self, Z_ref: Float[Tensor, "c f h w"], prompts: tuple[str, ...], requests: Sequence[Request]
    ) -> Branches:
        """The editing branches where they stopped, or at Z_ref, and the reference branch."""
        begun = [request.resume["Z"].to(Z_ref.device) if request.resume else Z_ref for request in requests]
        return Branches(torch.stack([*begun, Z_ref]), prompts)

    def resumed_optimizer(self, Z_i: Float[Tensor, "c f h w"], request: Request) -> torch.optim.Optimizer:
        """An optimizer over one edit's latent, which is a view: a step on it is a step of its branch."""
        optimizer = self.optimizer([Z_i])
        kept = {k.removeprefix(OPTIMIZER): v for k, v in (request.resume or {}).items() if k.startswith(OPTIMIZER)}
        if kept:
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": {0: kept}, "param_groups": groups})
        return optimizer


def total(parts: dict[str, Contribution]) -> Float[Tensor, "b c f h w"]:
    """The sum of the components' gradients."""
    first, *others = (part.gradient for part in parts.values())
    return sum(others, first)


def descend(optimizer: torch.optim.Optimizer, gradient: Float[Tensor, "c f h w"]) -> None:
    """One step of an optimizer over a single latent."""
    (group,) = optimizer.param_groups
    (Z_i,) = group["params"]
    Z_i.grad = gradient
    optimizer.step()


def state(Z_i: Float[Tensor, "c f h w"], optimizer: torch.optim.Optimizer) -> Checkpoint:
    """What one edit needs to go on: its latent, and what its optimizer remembers of it."""
    remembered = optimizer.state_dict()["state"].get(0, {})
    return {"Z": Z_i, **{f"{OPTIMIZER}{key}": value for key, value in remembered.items() if value is not None}}


def told(parts: dict[str, Contribution], i: int) -> dict[str, Float[Tensor, ""]]:
    """What the components say of edit `i`, under their names."""
    return {f"{name}.{key}": value[i] for name, part in parts.items() for key, value in part.curves.items()}
