"""Trajectories are those that the rules, followed cell by cell, give."""

import random
import time

import pytest
import torch
import torch.nn.functional as F

from assd.diffusion.trajectories import trajectories


def plain_loop(flow, h, w, draws, window):
    """The rules as a loop over cells: rows of cells (frame, row, column), the padding left out."""
    frames, height, width = len(flow) + 1, *flow.shape[-2:]
    cells = [(t, i, j) for t in range(frames) for i in range(h) for j in range(w)]
    arrivals = {}
    for t, i, j in cells[: -h * w]:
        u, v = flow[t, :, i * height // h, j * width // w].tolist()
        row, column = i + round(v * h / height), j + round(u * w / width)
        if 0 <= row < h and 0 <= column < w:
            arrivals.setdefault((t + 1, row, column), []).append((t, i, j))
    before = {
        target: sources[draws.randint(0, len(sources) - 1) if len(sources) > 1 else 0]
        for target, sources in arrivals.items()
    }
    tracks = {}
    for cell in cells:
        tracks[cell] = tracks[before[cell]] if cell in before else []
        tracks[cell].append(cell)

    def around(t, i, j):
        places = [(i + di, j + dj) for di in range(-window, window + 1) for dj in range(-window, window + 1)]
        return [(t, y, x) for y, x in places if 0 <= y < h and 0 <= x < w and (y, x) != (i, j)]

    return [[cell, *around(*cell), *(c for c in tracks[cell] if c != cell)] for cell in cells]


def number(cell, h, w):
    t, i, j = cell
    return (t * h + i) * w + j


@pytest.mark.parametrize("window", [0, 1, 2])
@pytest.mark.parametrize(("h", "w", "frames"), [(6, 6, 4), (4, 7, 5), (5, 2, 2), (3, 3, 1)])
def test_they_are_those_of_the_plain_loop(h, w, frames, window):
    coarse = 12 * torch.randn(frames - 1, 2, 3, 3, generator=torch.Generator().manual_seed(h * w))
    flow = F.interpolate(coarse, size=(8 * h, 8 * w)) if frames > 1 else torch.zeros(0, 2, 8 * h, 8 * w)
    ours = trajectories(flow, h, w, random.Random(7), window)
    rows = plain_loop(flow, h, w, random.Random(7), window)
    assert len(rows) == len(ours.cells)
    for cells, here, row in zip(ours.cells, ours.here, rows):
        assert cells[here].tolist() == [number(cell, h, w) for cell in row]
        assert not cells[~here].any()


def test_draws_are_made_in_the_order_in_which_contested_cells_first_appear():
    """In a frame of 1 x 6 cells, cell 0 moves onto 4 and cells 1 and 3 onto 2: the draw among two comes first."""
    u = torch.tensor([4.0, 1.0, 0.0, -1.0, 0.0, 0.0])
    flow = torch.stack([u, torch.zeros(6)])[None, :, None]
    drawn = []

    class LastOne(random.Random):
        def randint(self, a, b):
            drawn.append(b + 1)
            return b

    ours = trajectories(flow, 1, 6, LastOne())
    assert drawn == [2, 3]
    assert ours.cells[:6].tolist() == [[0, 0], [1, 0], [2, 0], [3, 8], [4, 10], [5, 11]]
    assert ours.here[:6, 1].tolist() == [False, False, False, True, True, True]


def test_halves_of_a_cell_are_rounded_to_the_even_number():
    def end_of_cell_1(pixels):
        flow = torch.zeros(1, 2, 8, 40)
        flow[0, 0, :, 8:16] = pixels
        table = trajectories(flow, 1, 5, random.Random(0))
        return [c - 5 for c, here in zip(table.cells[1].tolist(), table.here[1].tolist()) if here and c >= 5]

    assert [end_of_cell_1(pixels) for pixels in (4.0, -4.0)] == [[1], [1]]
    assert end_of_cell_1(28.0) == []  # 3.5 cells: to column 5, outside
    assert end_of_cell_1(20.0) in ([3], [])  # 2.5 cells: 2, and a draw against the cell that rests there


def test_the_published_table_is_the_cell_itself_and_the_last_slots():
    """Nothing lasts two frames, so with a window of 1 the last two slots are neighbours: (1, 1) and (2, 0) are the
    last of the cell (1, 0) in a frame of 3 x 2.
    """
    flow = torch.full((2, 2, 3, 2), 9.0)
    table = trajectories(flow, 3, 2, random.Random(0), window=1)
    assert table.cells.shape == (18, 9)
    used = table.itself_and_last(2)
    assert used.cells[2].tolist() == [2, 0, 0]
    assert used.here[2].tolist() == [True, False, False]
    assert trajectories(flow, 3, 2, random.Random(0)).cells.shape == (18, 1)


def test_sixteen_frames_take_seconds_not_minutes():
    coarse = 25 * torch.randn(15, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    flow = F.interpolate(coarse, size=(512, 512), mode="bicubic")
    begin = time.process_time()
    trajectories(flow, 64, 64, random.Random(0))
    assert time.process_time() - begin < 2
