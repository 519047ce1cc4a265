"""Classifier-free guidance, its only home. Branches are a batch axis: one forward pass predicts all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from assd.models import LatentDiffusion


def guided_noise(
    model: LatentDiffusion, z_t: Float[Tensor, "b ..."], t: int, prompts: Sequence[str], w: float
) -> Float[Tensor, "b ..."]:
    """eps^w = eps(empty) + w (eps(y) - eps(empty)), each branch under its own prompt y.

    The convention starts from the unconditional prediction: w = 0 is the unconditional one, w = 1 the conditional one
    (both exactly), w > 1 exaggerates the prompt. The batch of the one U-Net pass is (half, branch), the half of the
    empty prompt first; weighted attention fusion relies on this order.
    """
    embeddings = model.embed(("",) * len(prompts) + tuple(prompts))
    unconditional, conditional = model.predict_noise(torch.cat([z_t, z_t]), t, embeddings).chunk(2)
    return torch.lerp(unconditional, conditional, w)
