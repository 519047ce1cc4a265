"""FiVE-Bench's formulas once more, in numpy and Pillow, from files alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SCORED = range(0, 40, 8)


def scored_frames(folder: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Every 8th picture of a folder's first 40, resized by Pillow where a size (width, height) is given."""
    files = sorted(folder.iterdir())
    pictures = [Image.open(files[i]) for i in SCORED]
    return np.stack([np.asarray(picture.resize(size) if size else picture) for picture in pictures])


def outside(measure: Callable, edited: np.ndarray, source: np.ndarray, masks: np.ndarray) -> float:
    """The mean over frames of a measure of frames in [0, 1] that are black inside the mask."""
    kept = (masks == 0)[..., None]
    return float(np.mean([measure(a / 255 * k, b / 255 * k) for a, b, k in zip(edited, source, kept)]))


def mse(a: np.ndarray, b: np.ndarray) -> float:
    """Over the whole frame."""
    return float(((a - b) ** 2).mean())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of a peak of 1."""
    return -10 * np.log10(mse(a, b))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004: Gaussian window of 11 pixels and sigma 1.5, the frame mirrored at its edges."""

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, (1.5, 1.5, 0), radius=(5, 5, 0), mode="mirror")

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * cov + c2) / (var_a + var_b + c2)).mean())
