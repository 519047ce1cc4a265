"""FateZero: fusing attentions for zero-shot text-based video editing (Qi et al. 2023, arXiv 2303.09535)."""

from assd.methods.fatezero.editor import FateZero

__all__ = ["FateZero"]
