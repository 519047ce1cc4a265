"""FLATTEN: optical FLow-guided ATTENtion for consistent text-to-video editing (Cong et al. 2023, arXiv 2310.05922).

An image model edits all frames together. Its self-attention sees the tokens of all frames, and at the finest level its
output is mixed once more among the cells that show the same point of the scene, along trajectories of optical flow.
The source video is inverted; the inversion's features, queries and keys replace those of the first sampling steps.
"""

from assd.methods.flatten.editor import Flatten

__all__ = ["Flatten"]
