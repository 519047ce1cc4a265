"""Tune-A-Video, and the tuning by itself, with which other methods may begin."""

from assd.methods.tune_a_video.loop import TuneAVideo
from assd.methods.tune_a_video.tuning import Tuning, inflated

__all__ = ["TuneAVideo", "Tuning", "inflated"]
