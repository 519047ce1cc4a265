"""Editing from Python, in the manner of diffusers.

>>> import assd
>>> from assd.data.video import to_bytes
>>> from assd.shapes.corpus import clip_pairs
>>> from assd.shapes.world import render
>>> clip = clip_pairs()[0].source
>>> video = to_bytes(render(clip).frames).numpy()
>>> clip.caption
'a black circle moving right over brick'
>>> target = "a green circle moving right over brick"
>>> edited = assd.edit(video, clip.caption, target, overrides=["steps.distillation=2"])
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
from assd.data.pairs import Canvas, Footage
from assd.data.video import FOLDER_FPS, Video, evenly_spaced, read_video, to_bytes, to_pixels
from assd.errors import InputError, require
from assd.methods.method import Method, Request


def edit(
    video: str | Path | np.ndarray | Tensor | Sequence[Image.Image] | Sequence[np.ndarray],
    source: str,
    target: str | Sequence[str],
    model: str = "shapes",
    method: str = "score_distillation",
    ablation: str | None = None,
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
    method     a choice of conf/method
    ablation   a choice of conf/ablation, for score distillation
    overrides  more, as on the command line: ["steps.distillation=200", "attention.lam=0.6"]
    name       the clip's, which seeds the noise; of a path it is the file's, as under dataset=video
    progress   receives the number of steps done and that of all, after each

    The same configuration, and the same object that edits, as `python -m assd.run` has. Raises InputError for what
    can't be used and DivergedError when the gradient is NaN or Inf.
    """
    chosen = [f"model={model}", f"method={method}", *([f"+ablation={ablation}"] if ablation else []), f"seed={seed}"]
    editor = build(composed([*chosen, *overrides]))
    if isinstance(video, (str, Path)):
        name = Path(video).resolve().stem
    targets = [target] if isinstance(target, str) else list(target)
    require(bool(targets), "target must be a prompt, or a list of at least one; got an empty list")
    edits = editor(
        as_footage(video, editor.canvas),
        source,
        [Request(prompt) for prompt in targets],
        name,
        advance=lambda step: progress(step, editor.num_steps),
    )
    edited = [to_bytes(edit.frames).numpy() for edit in edits]
    return edited[0] if isinstance(target, str) else edited


def build(cfg: DictConfig) -> Method:
    """The configured method. Raises InputError for what a component refuses, without Hydra's words around it."""
    try:
        return instantiate(cfg.method, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def as_footage(
    video: str | Path | np.ndarray | Tensor | Sequence[Image.Image] | Sequence[np.ndarray], canvas: Canvas
) -> Footage:
    """A video, however it is given, on a canvas."""
    if isinstance(video, (str, Path)):
        source = read_video(Path(video), canvas.num_frames)
    else:
        source = Video(as_bytes(video, canvas.num_frames), FOLDER_FPS)
    return Footage(to_pixels(source.frames, canvas.height, canvas.width), source.fps)


def as_bytes(
    video: np.ndarray | Tensor | Sequence[Image.Image] | Sequence[np.ndarray], num_frames: int
) -> UInt8[Tensor, "n H W 3"]:
    """Evenly spaced frames of a video in memory. Raises InputError for anything else."""
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
