"""Clips as they lie in DAVIS's folders and elsewhere."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from assd.data.video import write_video


def davis_sequence(root: Path, name: str, frames: int = 5) -> None:
    """A sequence in DAVIS's layout: frames, and masks whose object is the left half."""
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        path = root / "DAVIS" / folder / "480p" / name
        path.mkdir(parents=True)
        for i in range(frames):
            pixels = np.zeros((60, 80, 3), np.uint8) + 30 * i
            if folder == "Annotations":
                pixels = np.repeat((np.arange(80) < 40)[None].astype(np.uint8), 60, 0)
            Image.fromarray(pixels).save(path / f"{i:05d}.{suffix}")


def clip_file(path: Path) -> Path:
    """A short mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8), 8.0)
    return path
