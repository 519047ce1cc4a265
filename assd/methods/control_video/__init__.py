"""ControlVideo (Zhang et al. 2023, arXiv 2305.13077): a video is made from a prompt and the source's control maps."""

from assd.methods.control_video.editor import ControlVideo

__all__ = ["ControlVideo"]
