"""Score distillation: SDS, Video-DDS and ASSD, joint guidance and weighted attention fusion (arXiv 2406.04888v2)."""

from assd.methods.score_distillation.loop import ScoreDistillation

__all__ = ["ScoreDistillation"]
