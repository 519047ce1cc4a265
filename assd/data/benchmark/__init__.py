"""The benchmark of real videos, 30 core pairs and 57 more: what they are, and how one comes by their clips."""

from assd.data.benchmark.dataset import benchmark

__all__ = ["benchmark"]
