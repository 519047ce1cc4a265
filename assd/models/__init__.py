"""Frozen latent diffusion models: the interface, where they come from, and the published architectures."""

from assd.models.latent_diffusion import LatentDiffusion, unknown_words
from assd.models.loading import load, resolve_device, resolve_folder

__all__ = ["LatentDiffusion", "load", "resolve_device", "resolve_folder", "unknown_words"]
