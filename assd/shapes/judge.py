"""Reads a clip's four attributes off its pixels, by likelihood under the renderer's own colours and masks.

Used on generated and edited clips: it knows nothing of the networks that made them.
"""

import functools
import random
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from assd.shapes.world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZE, draw_clip, render, signed_distance, visible

BINS = 20  # a side of the colour histogram
OBJECT_SHARE = 0.09  # of the frame, in the mean
CLIPS_PER_COMBINATION = 4  # rendered to learn the histograms


def judge(frames: Float[Tensor, "n 3 H W"]) -> dict[str, str]:
    """The most likely colour, shape, motion and background of a clip with pixels in [-1, 1]."""
    bins = histogram_bins(frames)
    colours, backgrounds = histograms()
    likelihood = {
        (c, b): (OBJECT_SHARE * colours[c][bins] + (1 - OBJECT_SHARE) * backgrounds[b][bins]).log().sum().item()
        for c in COLOURS
        for b in BACKGROUNDS
        if visible(c, b)
    }
    colour, background = max(likelihood, key=likelihood.__getitem__)
    inside = OBJECT_SHARE * colours[colour][bins]
    masks = inside / (inside + (1 - OBJECT_SHARE) * backgrounds[background][bins])
    masks = largest_part(F.avg_pool2d(masks[:, None], 3, 1, 1)[:, 0] > 0.5)  # without lone pixels and bystanders
    return {"colour": colour, "shape": judge_shape(masks), "motion": judge_motion(masks), "background": background}


def largest_part(masks: Bool[Tensor, "n H W"]) -> Float[Tensor, "n H W"]:
    """Each frame's largest connected part: the captioned object is larger than any other."""
    parts = []
    for mask in masks.numpy():
        labels, _ = ndimage.label(mask)
        sizes = np.bincount(labels.ravel())[1:]
        parts.append(torch.from_numpy(labels == 1 + sizes.argmax() if len(sizes) else mask))
    return torch.stack(parts).float()


def judge_motion(masks: Float[Tensor, "n H W"]) -> str:
    """The direction in which the object's centre travels from the first two frames to the last two."""
    centres = centroids(masks)
    way = centres[-2:].mean(0) - centres[:2].mean(0)
    return max(MOTIONS, key=lambda motion: float(way @ torch.tensor(MOTIONS[motion])))


def judge_shape(masks: Float[Tensor, "n H W"]) -> str:
    """The shape whose template, of the mask's own centre and area, overlaps best (mean intersection over union)."""
    area = masks.sum((1, 2)) * (2 / SIZE) ** 2
    overlap = {}
    for shape in SHAPES:
        unit_area, unit_centre = template_moments(shape)
        radius = (area / unit_area).sqrt().clamp(min=0.05)[:, None, None]
        centre = rearrange(centroids(masks), "n xy -> xy n 1 1") - radius * unit_centre[:, None, None, None]
        x, y = grid()
        template = signed_distance(shape, (x - centre[0]) / radius, (y - centre[1]) / radius) < 0
        both, either = (template * masks).sum((1, 2)), torch.maximum(template.float(), masks).sum((1, 2))
        overlap[shape] = (both / either.clamp(min=1)).mean().item()
    return max(overlap, key=overlap.__getitem__)


def centroids(masks: Float[Tensor, "n H W"]) -> Float[Tensor, "n 2"]:
    """Centres (x, y) in half-widths."""
    x, y = grid()
    weight = masks.sum((1, 2)).clamp(min=1)
    return torch.stack([(masks * x).sum((1, 2)) / weight, (masks * y).sum((1, 2)) / weight], dim=-1)


def grid() -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Pixel centres in half-widths."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


@functools.cache
def template_moments(shape: str) -> tuple[float, Float[Tensor, " 2"]]:
    """Area and centre of a shape of radius 1, measured on a fine grid."""
    axis = torch.linspace(-2, 2, 801)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = (signed_distance(shape, x, y) < 0).float()
    area = inside.sum().item() * 0.005**2
    return area, torch.stack([(x * inside).sum(), (y * inside).sum()]) / inside.sum()


def histogram_bins(frames: Float[Tensor, "n 3 H W"]) -> Int[Tensor, "n H W"]:
    """Each pixel's cell in the colour histogram."""
    r, g, b = ((frames.clamp(-1, 1) + 1) / 2 * (BINS - 1)).round().long().unbind(1)
    return (r * BINS + g) * BINS + b


@functools.cache
def histograms() -> tuple[dict[str, Float[Tensor, " bins"]], dict[str, Float[Tensor, " bins"]]]:
    """Smoothed colour distributions of the rendered objects by colour, and of the textures by background."""
    rng = random.Random("judge")
    counts = {name: torch.zeros(BINS**3) for name in (*COLOURS, *BACKGROUNDS)}
    for colour in COLOURS:
        for background in BACKGROUNDS:
            for _ in range(CLIPS_PER_COMBINATION):
                rendering = render(replace(draw_clip(rng, "plain"), colour=colour, background=background))
                bins, mask = histogram_bins(rendering.frames[:2]), rendering.masks[:2]
                counts[colour] += torch.bincount(bins[mask], minlength=BINS**3)
                counts[background] += torch.bincount(bins[~mask], minlength=BINS**3)
    smooth = {name: smoothed(count) for name, count in counts.items()}
    return {c: smooth[c] for c in COLOURS}, {b: smooth[b] for b in BACKGROUNDS}


def smoothed(count: Float[Tensor, " bins"]) -> Float[Tensor, " bins"]:
    """A distribution that forgives small shifts of colour, nowhere zero."""
    cube = count.view(1, 1, BINS, BINS, BINS)
    for _ in range(2):
        cube = F.avg_pool3d(cube, 3, 1, 1)
    density = cube.flatten() / cube.sum()
    return 0.999 * density + 0.001 / BINS**3
