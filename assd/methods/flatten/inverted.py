"""What FLATTEN's inversion leaves to sampling."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.diffusion.features import Features
from assd.diffusion.guidance import guided_prediction
from assd.diffusion.model import Model
from assd.methods.method import Checkpoint, Request

INVERTED = "inverted."  # before a timestep, in a checkpoint: the inversion's latent there


@dataclass(frozen=True)
class Inverted:
    """The inversion's features, and the latents from which they can be had again.

    prompt    under which the video is inverted, without guidance
    features  by timestep; too large for a checkpoint
    latents   by timestep, as long as they are needed
    """

    model: Model
    prompt: str
    features: Features
    latents: dict[int, Float[Tensor, "1 c f h w"]]

    def predict(self, z: Float[Tensor, "1 c f h w"], t: int) -> Float[Tensor, "1 c f h w"]:
        """The network's prediction."""
        return guided_prediction(self.model, z, t, (self.prompt,), w=1)

    @contextlib.contextmanager
    def injected(self, t: int) -> Iterator[None]:
        """Within it the network goes on with the features of timestep t, which are let go afterwards.

        Where they were not kept, or are lost since the edit was interrupted, the network makes them again.
        """
        latent, store, layers = self.latents.pop(t), self.features.store, self.features.layers
        if any((t, layer) not in store for layer in layers):
            with self.features.tapped(t):
                self.predict(latent, t)
        with self.features.injected(t):
            yield
        for layer in layers:
            store.discard(t, layer)

    def checkpoint(self, z: Float[Tensor, "b c f h w"], i: int) -> Checkpoint:
        """What edit `i` of these needs to go on."""
        return {"Z": z[i], **{f"{INVERTED}{t}": latent[0] for t, latent in self.latents.items()}}


def begun(request: Request, device: torch.device) -> dict[int, Float[Tensor, "1 c f h w"]]:
    """The inversion's latents in a request's checkpoint."""
    kept = {key: value for key, value in (request.resume or {}).items() if key.startswith(INVERTED)}
    return {int(key.removeprefix(INVERTED)): latent.to(device)[None] for key, latent in kept.items()}
