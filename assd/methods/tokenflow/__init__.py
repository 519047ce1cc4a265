"""TokenFlow: Consistent Diffusion Features for Consistent Video Editing (Geyer et al. 2023, arXiv 2307.10373).

An image model edits a few key frames together. The other frames don't attend: each of their tokens takes the edited
tokens at its nearest neighbours in the source video's key frames, so that the edit moves as the source does.
"""

from assd.methods.tokenflow.editor import TokenFlow

__all__ = ["TokenFlow"]
