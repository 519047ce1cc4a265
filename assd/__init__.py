"""Zero-shot video editing by score distillation (arXiv 2406.04888v2), and the editors it is compared with.

Axis names, the same in every signature, einops pattern and docstring:

    b  batch                      n  frames of one video
    c  channels of a latent       H, W  rows and columns of pixels
    f  frames of a latent         h, w  rows and columns of a latent
    l  tokens of a prompt         d  width of a token's embedding

A latent has as many frames as its video (f = n) unless its autoencoder compresses time. Pixels are float in [-1, 1]
inside the core and uint8 RGB at its edges; a latent is already normalised, so that it has about unit variance.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`assd.edit`, imported when it is asked for: torch takes seconds to load."""
    if name == "edit":
        from assd.editing import edit  # noqa: PLC0415

        return edit
    raise AttributeError(f"module 'assd' has no attribute {name!r}")
