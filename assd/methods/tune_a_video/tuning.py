"""One-shot tuning: an image U-Net is made to see time, and some of its weights are trained on a single video."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from assd.diffusion.attention import processors_on
from assd.diffusion.draw import Draw, draw_step
from assd.diffusion.frames import FrameAttention, first_and_previous
from assd.diffusion.model import Model
from assd.diffusion.schedule import joined
from assd.errors import require
from assd.methods.method import Checkpoint
from assd.methods.recorder import Recorder
from assd.models.inflation import (
    Weights,
    image_unet,
    joint_group_norm,
    temporal_attention,
    temporal_weights,
    weights_on,
)

Key: TypeAlias = tuple[int, str]  # (seed, clip): all that is random depends on it, and on the step
TRAINED = ("attn1.to_q.", "attn2.to_q.", "attn_temp.")
DOWN_PATH = "down_blocks."
BIASES = ("random", "zero")
WEIGHT, MOMENT = "weight.", "moment."  # before the names of a tuning's state in a checkpoint


@contextlib.contextmanager
def inflated(model: Model, weights: Weights, frames: int) -> Iterator[None]:
    """Within it the image model predicts a video of so many frames with these weights; see `Tuning`.

    Of float32 weights in a bfloat16 network, autocast makes bfloat16 ones at every use.
    """
    network, dtype = model.network, next(model.network.parameters()).dtype
    attention = FrameAttention(first_and_previous(frames))
    with (
        temporal_attention(network, frames),
        weights_on(network, weights),
        joint_group_norm(network, frames),
        processors_on(network, dict.fromkeys(model.layers.self_attention, attention)),
        torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False),
    ):
        yield


@dataclass(frozen=True)
class Tuning:
    """Tuning of an inflated image U-Net on one video, for any method that begins with it.

    It trains the queries of self-attention and cross-attention and the whole temporal attention, with AdamW, on

        E_{t, eps} |prediction(Z_t, t, y) - target|^2,  Z_t = alpha_t Z + sigma_t eps,  y the source prompt,

    where the target is what the network should have predicted, eps or v. One t is drawn for all frames, uniformly.

    steps                   of the optimizer
    learning_rate, weight_decay  of AdamW
    max_gradient_norm       longer gradients are cut to this norm
    train_down_path         whether the encoder's layers are trained too. The paper trains them; the published
                            configurations did not, because their gradient checkpointing cut the graph there
    temporal_bias           how the output bias of temporal attention starts, whose output weight starts at 0. `random`
                            as published: it shifts an untuned network, and the encoder's for good where it is not
                            trained; or `zero`
    gradient_checkpointing  whether activations are computed again in the backward pass: less memory, more time
    """

    steps: int
    learning_rate: float
    weight_decay: float
    max_gradient_norm: float
    train_down_path: bool
    temporal_bias: str
    gradient_checkpointing: bool

    def __post_init__(self):
        require(self.steps >= 1, f"tuning.steps must be >= 1; got {self.steps}")
        require(self.learning_rate > 0, f"tuning.learning_rate must be > 0; got {self.learning_rate}")
        require(self.weight_decay >= 0, f"tuning.weight_decay must be >= 0; got {self.weight_decay}")
        require(self.max_gradient_norm > 0, f"tuning.max_gradient_norm must be > 0; got {self.max_gradient_norm}")
        require(
            self.temporal_bias in BIASES,
            f"tuning.temporal_bias must be one of {', '.join(BIASES)}; got {self.temporal_bias!r}",
        )

    def check(self, model: Model) -> None:
        """Raises InputError unless the model is an image U-Net whose precision carries small steps."""
        dtype = next(image_unet(model, "Tune-A-Video").parameters()).dtype
        require(
            dtype in (torch.float32, torch.bfloat16),
            f"tuning needs a model of dtype float32 or bfloat16, whose gradients do not vanish; it has {dtype}",
        )

    def __call__(self, model: Model, Z: Float[Tensor, "c f h w"], source: str, key: Key, recorder: Recorder) -> Weights:
        """The weights tuned to one video, for `inflated`. It is the first phase, of `steps` steps; none is repeated."""
        resume = recorder.requests[0].resume or {}
        weights = self.weights(model, key, resume)
        if recorder.begin >= self.steps:
            return weights
        optimizer = self.optimizer(weights, resume)
        with inflated(model, weights, Z.shape[1]), checkpointing(model, self.gradient_checkpointing):
            for step, _ in recorder.phase(range(self.steps)):
                draw = draw_step(*key, step, Z, (0, len(model.schedule) - 1))
                measured = self.descend(model, optimizer, Z, source, draw)
                recorder.note(
                    step,
                    [measured for _ in recorder.requests],
                    lambda i: self.kept(weights) | moments(optimizer),
                )
        return weights

    @torch.no_grad()
    def weights(self, model: Model, key: Key, resume: Checkpoint) -> Weights:
        """All that an edit's network does not share with the frozen model, where the tuning starts or stopped."""
        own = model.network.named_parameters()
        queries = {name: value.detach().to(torch.float32, copy=True) for name, value in own if self.trains(name)}
        weights = {name: nn.Parameter(value, requires_grad=False) for name, value in queries.items()}
        weights |= temporal_weights(model.network, key, random_bias=self.temporal_bias == "random")
        for name, value in below(WEIGHT, resume).items():
            weights[name].copy_(value)
        return weights

    def trains(self, name: str) -> bool:
        """Whether a parameter of this name is trained."""
        return any(part in name for part in TRAINED) and (self.train_down_path or not name.startswith(DOWN_PATH))

    def kept(self, weights: Weights) -> Checkpoint:
        """The trained weights; the others follow from the key."""
        return {f"{WEIGHT}{name}": value.detach() for name, value in weights.items() if self.trains(name)}

    def optimizer(self, weights: Weights, resume: Checkpoint) -> torch.optim.Optimizer:
        """AdamW over the trained weights, which from now on ask for a gradient."""
        trained = [weight.requires_grad_() for name, weight in weights.items() if self.trains(name)]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay)
        state: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, value in below(MOMENT, resume).items():
            number, _, moment = name.partition(".")
            state[int(number)][moment] = value.clone()
        optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(state)})
        return optimizer

    def descend(
        self, model: Model, optimizer: torch.optim.Optimizer, Z: Float[Tensor, "c f h w"], source: str, draw: Draw
    ) -> dict[str, Any]:
        """One step within `inflated`; what there is to tell of it."""
        (group,) = optimizer.param_groups
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = denoising_loss(model, Z, source, draw)
            loss.backward()
        norm = nn.utils.clip_grad_norm_(group["params"], self.max_gradient_norm)
        optimizer.step()
        return {"t": draw.t, "loss": loss.detach(), "gradient_norm": norm}


def denoising_loss(model: Model, Z: Float[Tensor, "c f h w"], prompt: str, draw: Draw) -> Float[Tensor, ""]:
    """The mean squared error of what the network predicts of Z_t."""
    level = model.schedule[draw.t]
    z_t = level.add_noise(Z, draw.eps)
    prediction = model.predict(z_t[None], draw.t, model.embed((prompt,)))[0]
    return F.mse_loss(prediction, joined(model.prediction, Z, draw.eps, level))


@contextlib.contextmanager
def checkpointing(model: Model, wanted: bool) -> Iterator[None]:
    """Within it the network's blocks keep no activations for the backward pass, if that is wanted."""
    network: Any = model.network
    if wanted:
        network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if wanted:
            network.disable_gradient_checkpointing()


def moments(optimizer: torch.optim.Optimizer) -> Checkpoint:
    """What an optimizer remembers of each weight, by the weight's number."""
    state = optimizer.state_dict()["state"]
    return {f"{MOMENT}{number}.{name}": value for number, of in state.items() for name, value in of.items()}


def below(prefix: str, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint's entries under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in checkpoint.items() if name.startswith(prefix)}
