"""Which frames TokenFlow edits together, and how much of each the other frames take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.diffusion.draw import generator
from assd.errors import require

CHOICES = {
    "neighbours": ("adjacent", "previous"),
    "weighting": ("linear", "sigmoid"),
    "distance": ("key_frame", "batch_centre"),
}


def check_choices(component: object, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError for an argument that is none of its choices."""
    for name, known in choices.items():
        chosen = getattr(component, name)
        require(chosen in known, f"{name} must be one of {', '.join(known)}; got {chosen!r}")


@dataclass(frozen=True)
class KeyFrames:
    """One key frame a batch of consecutive frames, drawn anew at each step. k of them.

    A frame takes from two key frames, a and b, or from one alone:

        w_a = d_b / (d_a + d_b), or sigmoid of it as published, and w_b = 1 - w_a, where d is the distance in frames

    num_frames, batch_size  of the video; the last batch may be smaller
    neighbours  a and b are: `adjacent`, the next key frame and the last one; `previous` as published, that of the
                frame's own batch and of the batch before. Where there is no second one, the first counts alone
    weighting   `linear`, so that a key frame is itself; `sigmoid` as published, which lies between 0.5 and 0.73
    distance    to the `key_frame`, or as published to its `batch_centre`, frame batch_size // 2 of its batch
    offsets     each step's key frame in each batch, counted from the batch's first frame; None draws them
    """

    num_frames: int
    batch_size: int
    neighbours: str
    weighting: str
    distance: str
    offsets: Sequence[Sequence[int]] | None = None

    def __post_init__(self):
        check_choices(self, CHOICES)
        require(self.batch_size >= 1, f"batch_size must be >= 1; got {self.batch_size}")
        sizes = [len(batch) for batch in self.batches]
        for step, row in enumerate(self.offsets or ()):
            require(
                len(row) == len(sizes) and all(0 <= offset < size for offset, size in zip(row, sizes)),
                f"keyframe_offsets needs one offset a batch, each in its batch of {', '.join(map(str, sizes))} frames; "
                f"got {list(row)} at step {step}",
            )

    @property
    def batches(self) -> list[range]:
        """The frames of each batch."""
        firsts = range(0, self.num_frames, self.batch_size)
        return [range(first, min(first + self.batch_size, self.num_frames)) for first in firsts]

    def drawn(self, seed: int, clip: str, step: int, t: int) -> list[int]:
        """One frame of each batch, uniform from (seed, clip, t): the same at one t, wherever an edit starts."""
        if self.offsets is not None:
            return [batch[offset] for batch, offset in zip(self.batches, self.offsets[step])]
        rng = generator(seed, clip, t)
        return [batch[int(torch.randint(len(batch), (), generator=rng))] for batch in self.batches]

    def weights(self, key_frames: Sequence[int]) -> Float[Tensor, "f k"]:
        """The share of each key frame in each frame; a row sums to 1."""
        positions = list(key_frames) if self.distance == "key_frame" else self.centres
        weights = torch.zeros(self.num_frames, len(positions))
        for i in range(self.num_frames):
            a, b = self.two_neighbours(positions, i)
            d_a, d_b = abs(i - positions[a]), abs(i - positions[b])
            w = torch.tensor(d_b / (d_a + d_b)) if a != b else torch.tensor(1.0)
            weights[i, a] = w.sigmoid() if self.weighting == "sigmoid" and a != b else w
            weights[i, b] += 1 - weights[i, a]
        return weights

    @property
    def centres(self) -> list[int]:
        """Of the batches; of a smaller last one, where a full one's would be."""
        return [batch.start + self.batch_size // 2 for batch in self.batches]

    def two_neighbours(self, positions: list[int], i: int) -> tuple[int, int]:
        """The numbers of the key frames from which frame i takes, twice the same where there is only one."""
        if self.neighbours == "previous":
            own = i // self.batch_size
            return own, max(own - 1, 0)
        after = [k for k, position in enumerate(positions) if position >= i] or [len(positions) - 1]
        before = [k for k, position in enumerate(positions) if position <= i] or [0]
        return after[0], before[-1]
