"""Classifier-free guidance, its only home. Branches are a batch axis: one forward pass predicts all of them."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from assd.diffusion.model import Embeddings, Model
from assd.diffusion.schedule import to_noise
from assd.errors import require

Scale: TypeAlias = float | Sequence[float]  # w: one for all branches, or one a branch
EMPTY = ""


def guided_noise(
    model: Model, z_t: Float[Tensor, "b c f h w"], t: int, prompts: Sequence[str], w: Scale, negative: str = EMPTY
) -> Float[Tensor, "b c f h w"]:
    """eps^w = eps(negative) + w (eps(y) - eps(negative)), each branch under its own prompt y.

    The convention starts from the unconditional prediction: w = 0 is the unconditional one, w = 1 the conditional one
    (both exactly), w > 1 exaggerates the prompt. The negative prompt is empty unless one is given. The batch of the
    one pass is (half, branch), the half of the negative prompt first; weighted attention fusion relies on this order.
    """

    def noise(z: Tensor, embeddings: Embeddings) -> Tensor:
        return to_noise(model.prediction, model.predict(z, t, embeddings), z, model.schedule[t])

    embeddings = model.embed((negative,) * len(prompts) + tuple(prompts))
    return lerp_halves(noise(torch.cat([z_t, z_t]), embeddings), w)


def guided_prediction(
    model: Model, z_t: Float[Tensor, "b c f h w"], t: int, prompts: Sequence[str], w: Scale, negative: str = EMPTY
) -> Float[Tensor, "b c f h w"]:
    """The same in what the network predicts, which a sampler needs: of pure noise eps says nothing.

    At w = 1 the unconditional half is left out.
    """
    if w == 1:
        return model.predict(z_t, t, model.embed(tuple(prompts)))
    embeddings = model.embed((negative,) * len(prompts) + tuple(prompts))
    return lerp_halves(model.predict(torch.cat([z_t, z_t]), t, embeddings), w)


def lerp_halves(halves: Float[Tensor, "halves c f h w"], w: Scale) -> Float[Tensor, "b c f h w"]:
    """From the unconditional half to the conditional half and beyond."""
    unconditional, conditional = halves.chunk(2)
    if isinstance(w, (int, float)):
        return torch.lerp(unconditional, conditional, w)
    require(
        len(w) == len(conditional),
        f"guidance_scale (w) must be one number, or one a branch; got {len(w)} for {len(conditional)} branches",
    )
    return torch.lerp(unconditional, conditional, conditional.new_tensor([*w])[:, None, None, None, None])


def check_scale(w: Scale) -> None:
    """Raises InputError for a negative guidance scale."""
    smallest = w if isinstance(w, (int, float)) else min(w)
    require(smallest >= 0, f"guidance_scale (w) must be >= 0; got {w}")
