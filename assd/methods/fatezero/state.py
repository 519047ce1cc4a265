"""What FateZero carries from step to step: the inverted video that all edits share, and each edit."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from assd.methods.fatezero.control import Control, ControlledStep
from assd.methods.fatezero.layers import Layers
from assd.methods.fatezero.maps import SourceMaps
from assd.methods.method import Checkpoint, Request


@dataclass(frozen=True)
class Inversion:
    """The source video on its way to noise.

    prompt      the source prompt
    trajectory  its latents, the clean one first, one more a step
    layers      whose maps are exchanged
    maps        of the steps
    tuned       what a checkpoint keeps of tuned weights
    """

    prompt: str
    trajectory: list[Float[Tensor, "1 c f h w"]]
    layers: Layers
    maps: SourceMaps
    tuned: Checkpoint = field(default_factory=dict)

    @property
    def state(self) -> Checkpoint:
        """What it needs to go on: the maps are computed again."""
        return {"trajectory": torch.cat(self.trajectory), **self.tuned}


def resumed_trajectory(request: Request, Z_ref: Float[Tensor, "c f h w"]) -> list[Float[Tensor, "1 c f h w"]]:
    """The latents up to where the inversion stopped; at the beginning the clean one."""
    kept = (request.resume or {}).get("trajectory")
    return [Z_ref[None]] if kept is None else list(kept.to(Z_ref.device).split(1))


@dataclass
class Branch:
    """One edit on its way.

    target   its prompt
    control  what it does to maps and latent
    z        the latent
    words    where it attended to the new words, on the grid of the layers that masks come from, summed over the steps
             done; 0 before the first
    """

    target: str
    control: Control
    z: Float[Tensor, "1 c f h w"]
    words: Float[Tensor, "f r s"] | float = 0.0

    @classmethod
    def begun(cls, request: Request, control: Control, inverted: Float[Tensor, "1 c f h w"]) -> "Branch":
        """Where it stopped, or at the inverted latent."""
        state = request.resume or {}
        if "Z" not in state:
            return cls(request.target, control, inverted)
        words = state["words"]
        return cls(
            request.target,
            control,
            state["Z"].to(inverted.device)[None],
            words.to(inverted.device) if isinstance(words, Tensor) else words,
        )

    @property
    def state(self) -> Checkpoint:
        """What it needs to go on, beside the inversion."""
        return {"Z": self.z[0], "words": self.words}

    def proceed(self, controlled: ControlledStep, z: Float[Tensor, "1 c f h w"], z_inv: Tensor) -> None:
        """After a step to z; z_inv is the source video there."""
        self.z = z
        if self.control.blended_after:
            self.words = self.words + controlled.target_words
            self.z = controlled.blended(z, z_inv, self.words)
