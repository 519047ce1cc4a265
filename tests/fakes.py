"""A model whose networks are functions, so that a test knows what it predicts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from assd.data.pairs import Canvas
from assd.diffusion.model import AttentionLayers, LatentSpace
from assd.diffusion.schedule import Prediction, Schedule

CANVAS = Canvas(3, 8, 20)


def schedule(first: float = 0.999, last: float = 0.005, **options: Any) -> Schedule:
    """1000 timesteps whose abar falls along a line."""
    return Schedule.from_alphas_cumprod(torch.linspace(first, last, 1000).double(), options)


def unused(*_: object) -> Any:
    """Stands for a function that a test never calls."""
    raise AssertionError("the fake model was asked for something that the test did not expect")


@dataclass(eq=False)
class FakeModel:
    """Satisfies `assd.diffusion.model.Model`; prompts are their own embeddings, unless `embed` says otherwise."""

    predict: Callable[..., Tensor] = unused
    encode: Callable[..., Tensor] = unused
    decode: Callable[..., Tensor] = unused
    embed: Callable[..., Any] = tuple
    check_prompt: Callable[[str], None] = lambda prompt: None
    prediction: Prediction = "epsilon"
    schedule: Schedule = field(default_factory=schedule)
    canvas: Canvas | None = CANVAS
    latents: LatentSpace = field(default_factory=lambda: LatentSpace(4))
    network: nn.Module = field(default_factory=nn.Identity)
    layers: AttentionLayers = field(default_factory=AttentionLayers)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
