"""A complete edit, of which all that is recorded is looked at."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from assd.methods.method import Checkpoint, Request
from assd.methods.tokenflow import TokenFlow
from assd.methods.tokenflow.editor import Inversion
from assd.methods.tokenflow.propagation import TokenPropagation
from tests.parity.tokenflow.setup import SOURCE, TARGET, RecordingModel, footage


@contextlib.contextmanager
def nearest_watched(model: RecordingModel) -> Iterator[dict]:
    """Within it what a search finds is kept by (number of the pass, layer, key frame): indices, and smallest margin.

    A token's margin is the gap between the largest cosine and the next; of a key frame of one token, infinite.
    """
    found, nearest = {}, TokenPropagation.nearest

    def watched(self: TokenPropagation, layer: str, key: int, source: Tensor) -> Tensor:
        indices = nearest(self, layer, key, source)
        cosines = (F.normalize(source, dim=-1) @ self.tokens[layer][key].T).topk(min(2, len(self.tokens[layer][key])))
        first, *second = cosines.values.unbind(-1)
        found[len(model.predictions), layer, key] = (
            indices,
            min([float((first - other).min()) for other in second], default=np.inf),
        )
        return indices

    TokenPropagation.nearest = watched
    try:
        yield found
    finally:
        TokenPropagation.nearest = nearest


class Watched:
    """A complete edit: its start and its latents after every step, the inputs and outputs of its passes."""

    def __init__(self, tokenflow: TokenFlow):
        self.tokenflow, self.model, self.x = tokenflow, tokenflow.model, []
        self.batches = len(tokenflow.key_frames.batches)
        self.begin = len(self.model.predictions) + len(tokenflow.inversion_timesteps) * self.batches
        with nearest_watched(self.model) as self.nearest:
            tokenflow(footage(tokenflow.num_frames), SOURCE, [Request(TARGET, checkpoint=self.keep)], "clip")

    def keep(self, checkpoint: Checkpoint, curves: list[dict]) -> None:
        """One checkpoint a step; of the last one before sampling, the latent with which it begins."""
        if "Z" in checkpoint:
            self.x.append(checkpoint["Z"].clone())
        else:
            Z_ref = self.model.encode(footage(self.tokenflow.num_frames).frames)
            inversion = Inversion(checkpoint["inverted"], checkpoint["trajectory"])
            self.x = [self.tokenflow.started(Z_ref, inversion, "clip")]

    def number(self, step: int, batch: int | None) -> int:
        """Of a pass over a batch of frames, or over the key frames."""
        return self.begin + step * (1 + self.batches) + (0 if batch is None else 1 + batch)

    def candidates(self) -> Iterator[tuple[int, int, int, int]]:
        """(step, batch, candidate, key frame), the candidates being the own key frame and the previous one."""
        for step in range(len(self.tokenflow.timesteps)):
            for batch in range(self.batches):
                for candidate, key in enumerate([batch, batch - 1][: 1 + min(batch, 1)]):
                    yield step, batch, candidate, key
