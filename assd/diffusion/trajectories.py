"""Trajectories along optical flow (FLATTEN, Cong et al. 2023, arXiv 2310.05922): which cells show the same point.

A cell is one of the h x w positions of a feature map; its number counts them in the order (f h w). Flow takes a cell
to at most one cell of the next frame. Where several arrive at one, a draw decides which of them goes on, so that every
cell is on exactly one track. Axes beside those of `assd`: p cells of all frames, m = f - 1 pairs of frames, s slots.
"""

import random
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

NOWHERE = -1  # the number of a cell that isn't there

Links: TypeAlias = Int[np.ndarray, " p"]  # of each cell the cell of the next frame that it moves to, or NOWHERE


@dataclass(frozen=True)
class Trajectories:
    """Of each cell the cells that it is attended with.

    cells  their numbers: the cell itself, its spatial neighbours, the other cells on its track in order of time
    here   whether there is a cell in a slot; where there is none, `cells` says 0
    """

    cells: Int[Tensor, "p s"]
    here: Bool[Tensor, "p s"]

    def to(self, device: torch.device) -> "Trajectories":
        """The same on a device."""
        return Trajectories(self.cells.to(device), self.here.to(device))

    def itself_and_last(self, slots: int) -> "Trajectories":
        """The cell itself and the last so many slots."""
        first = max(0, self.cells.shape[1] - slots)
        cells, here = (torch.cat([table[:, :1], table[:, first:]], dim=1) for table in (self.cells, self.here))
        return Trajectories(cells, here)


def trajectories(flow: Float[Tensor, "m 2 H W"], h: int, w: int, draws: random.Random, window: int = 0) -> Trajectories:
    """The trajectories of h x w cells along forward flow, given in pixels (x, y) of H x W frames.

    draws   decides at collisions, by one `randint(0, n - 1)` for n cells that arrive together
    window  how far, in rows and columns, spatial neighbours of the same frame reach. They fill (2 window + 1)^2 - 1
            slots; the track fills as many as the longest track has cells beside the cell itself
    """
    frames = len(flow) + 1
    tracks = joined(without_collisions(links(flow, h, w), draws), frames)
    parts = [itself(len(tracks)), neighbours(frames, h, w, window), others_on_track(tracks)]
    table = np.concatenate(parts, axis=1)
    cells = torch.from_numpy(table)
    return Trajectories(cells.clamp(min=0), cells != NOWHERE)


def links(flow: Float[Tensor, "m 2 H W"], h: int, w: int) -> Links:
    """Where each cell moves: by round(w x / W) columns and round(h y / H) rows, with the flow at its top left pixel.

    Halves are rounded to the even number. Cells that leave the frame, and those of the last frame, go nowhere.
    """
    height, width = flow.shape[-2:]
    x, y = F.interpolate(flow, size=(h, w)).double().unbind(1)
    columns = torch.arange(w) + (w * x / width).round().long()
    rows = torch.arange(h)[:, None] + (h * y / height).round().long()
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    next_frame = torch.arange(1, len(flow) + 1)[:, None, None]
    arrived = torch.where(inside, (next_frame * h + rows) * w + columns, NOWHERE)
    return np.append(arrived.flatten().numpy(), np.full(h * w, NOWHERE))


def without_collisions(links: Links, draws: random.Random) -> Links:
    """The links of which no two end at one cell: of those that do, one that is drawn stays.

    Draws are made in the order in which the contested cells first appear; candidates stand in the order of their cells.
    """
    sources = np.flatnonzero(links != NOWHERE)
    targets, first, target_of, count = np.unique(
        links[sources], return_index=True, return_inverse=True, return_counts=True
    )
    candidates = sources[np.argsort(target_of, kind="stable")]  # those of one target together
    winner = np.cumsum(count) - count  # among the candidates: each target's first
    contested = np.flatnonzero(count > 1)
    contested = contested[np.argsort(first[contested])]
    winner[contested] += np.array([draws.randint(0, n - 1) for n in count[contested].tolist()], dtype=int)
    kept = np.full_like(links, NOWHERE)
    kept[candidates[winner]] = targets
    return kept


def joined(links: Links, frames: int) -> Int[np.ndarray, "p f"]:
    """Of each cell its track: the number of the track's cell in every frame. Where nothing links to, a track begins."""
    number = rearrange(np.arange(len(links)), "(f hw) -> f hw", f=frames)
    track = np.full_like(number, NOWHERE)
    begun = 0
    for frame, cells in enumerate(number):
        here = track[frame]
        is_new = here == NOWHERE
        here[is_new] = begun + np.arange(is_new.sum())
        begun += int(is_new.sum())
        goes_on = links[cells] != NOWHERE
        track.reshape(-1)[links[cells][goes_on]] = here[goes_on]
    cells_of = np.full((begun, frames), NOWHERE)
    cells_of[track, np.arange(frames)[:, None]] = number
    return cells_of[track.reshape(-1)]


def itself(cells: int) -> Int[np.ndarray, "p 1"]:
    """Each cell."""
    return np.arange(cells)[:, None]


def neighbours(frames: int, h: int, w: int, window: int) -> Int[np.ndarray, "p s"]:
    """Of each cell those around it in its frame, row by row; what is outside the frame is left out."""
    around = np.arange(-window, window + 1)
    dy, dx = (offset.reshape(-1) for offset in np.meshgrid(around, around, indexing="ij"))
    beside = (dy != 0) | (dx != 0)
    rows = np.arange(h)[:, None, None] + dy[beside]
    columns = np.arange(w)[None, :, None] + dx[beside]
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    of_frame = rearrange(np.where(inside, rows * w + columns, NOWHERE), "h w s -> (h w) s")
    first = np.arange(frames)[:, None, None] * h * w
    everywhere = np.where(of_frame == NOWHERE, NOWHERE, of_frame + first)
    return moved_up(rearrange(everywhere, "f hw s -> (f hw) s"))


def others_on_track(tracks: Int[np.ndarray, "p f"]) -> Int[np.ndarray, "p s"]:
    """Of each cell the others on its track, as many slots as the longest track needs."""
    others = moved_up(np.where(tracks == itself(len(tracks)), NOWHERE, tracks))
    longest = (tracks != NOWHERE).sum(axis=1).max()
    return others[:, : longest - 1]


def moved_up(table: Int[np.ndarray, "p s"]) -> Int[np.ndarray, "p s"]:
    """In each row the cells that are there first, in their order."""
    order = np.argsort(table == NOWHERE, axis=1, kind="stable")
    return np.take_along_axis(table, order, axis=1)
