"""Editing from Python, in the manner of diffusers.

>>> import assd
>>> from assd.video import to_bytes
>>> from assd.shapes.corpus import clip_pairs
>>> from assd.shapes.world import render
>>> clip = clip_pairs()[0].source
>>> video = to_bytes(render(clip)[0]).numpy()
>>> clip.caption
'a black circle moving right over brick'
>>> edited = assd.edit(video, clip.caption, "a green circle moving right over brick", overrides=["method.num_steps=2"])
>>> edited.shape
(8, 64, 64, 3)

Of a real video: `assd.edit("cat.mp4", source="a cat", target="a tiger", model="modelscope")`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from jaxtyping import UInt8
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from assd.config import composed
from assd.distillation import Request, ScoreDistillation
from assd.errors import InputError, require
from assd.video import evenly_spaced, read_video, to_bytes, to_pixels


def edit(
    video: str | Path | np.ndarray | Tensor | Sequence[Image.Image] | Sequence[np.ndarray],
    source: str,
    target: str | Sequence[str],
    model: str = "shapes",
    ablation: str = "full",
    seed: int = 0,
    overrides: Sequence[str] = (),
    name: str = "video",
    progress: Callable[[int, int], None] = lambda step, num_steps: None,
) -> list[UInt8[np.ndarray, "n H W 3"]] | UInt8[np.ndarray, "n H W 3"]:
    """Edits a video from what the prompt `source` describes to `target`; returns frames as bytes.

    video      a file, a folder of frames, or frames: bytes (n, H, W, 3), or a list of PIL images or arrays. As many as
               the model takes are used, evenly spaced
    target     a prompt; or several, which share the reference branch's pass and come back as a list
    model      `shapes` (embedded), `modelscope` or `zeroscope`: a choice of conf/model, with the image model it names
    ablation   a choice of conf/ablation
    overrides  more, as on the command line: ["method.num_steps=200", "attention.lam=0.6"]
    name       the clip's, which seeds the noise; of a path it is the file's, as under dataset=video
    progress   receives the number of steps done and that of all, after each

    The same configuration, and the same object that edits, as `python -m assd.run` has. Raises InputError for what
    can't be used and DivergedError when the gradient is NaN or Inf.
    """
    cfg = composed([f"model={model}", f"+ablation={ablation}", f"seed={seed}", *overrides])
    method = build(cfg)
    if isinstance(video, (str, Path)):
        name = Path(video).resolve().stem
    frames = to_pixels(as_bytes(video, method.model.num_frames), method.model.height, method.model.width)
    targets = [target] if isinstance(target, str) else list(target)
    edits = method(
        frames,
        source,
        [Request(prompt) for prompt in targets],
        name,
        advance=lambda step: progress(step, method.num_steps),
    )
    edited = [to_bytes(edit.frames).numpy() for edit in edits]
    return edited[0] if isinstance(target, str) else edited


def build(cfg: DictConfig) -> ScoreDistillation:
    """The configured method. Raises InputError for what a component refuses, without Hydra's words around it."""
    try:
        return instantiate(cfg.method, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def as_bytes(
    video: str | Path | np.ndarray | Tensor | Sequence[Image.Image] | Sequence[np.ndarray], num_frames: int
) -> UInt8[Tensor, "n H W 3"]:
    """The frames of whatever a video may be given as. Raises InputError for what is none."""
    if isinstance(video, (str, Path)):
        return read_video(Path(video), num_frames).frames
    if isinstance(video, Tensor):
        frames = video.cpu()
    elif isinstance(video, np.ndarray):
        frames = torch.as_tensor(np.ascontiguousarray(video))
    else:
        arrays = [np.asarray(f.convert("RGB") if isinstance(f, Image.Image) else f) for f in video]
        sizes = {array.shape for array in arrays}
        require(len(sizes) == 1, f"video must hold frames of one size; got {sorted(sizes) or 'no frame'}")
        frames = torch.as_tensor(np.stack(arrays))
    require(
        frames.dtype == torch.uint8 and frames.ndim == 4 and frames.shape[-1] == 3,
        f"video must be bytes (uint8) of shape (n, H, W, 3), PIL images, or a path; "
        f"got {str(frames.dtype).removeprefix('torch.')} of shape {tuple(frames.shape)}",
    )
    return frames[evenly_spaced(len(frames), num_frames, Path("video"))]
