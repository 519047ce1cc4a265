"""Networks behind the contract of `assd.diffusion.model`, where they come from, and the published architectures."""

from assd.models.hub import resolve_folder
from assd.models.loading import load
from assd.models.unet import LatentDiffusion, unknown_words

__all__ = ["LatentDiffusion", "load", "resolve_folder", "unknown_words"]
