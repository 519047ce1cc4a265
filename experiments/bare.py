"""An editor beside the bare networks that it calls: the rows of `make bench` for the published editors."""

import functools
from collections.abc import Sequence
from typing import Any

from hydra.utils import instantiate

from assd.config import composed
from assd.errors import EXPECTED, sentence
from assd.methods.method import Request
from experiments.common import STEPS, few_steps, noise_footage
from experiments.passes import Pass, models_of, networks_of, noting_passes

EDITORS = tuple(method for method in STEPS if method != "score_distillation")


class ShortEdit:
    """A method's edit of a video of noise, and the passes that it is made of without the method."""

    def __init__(self, method: Any, source: str, target: str, seed: int):
        self.method, self.source, self.target = method, source, target
        self.footage = noise_footage(method.canvas, seed)
        (self.model,) = models_of(method).values()

    def whole(self) -> None:
        """The edit."""
        self.method(self.footage, self.source, [Request(self.target)], "bench")

    @functools.cached_property
    def passes(self) -> list[Pass]:
        """Those of the edit, in their order: U-Net, ControlNet, and both halves of the autoencoder."""
        vae = self.model.vae
        assert vae is not None  # every editor's configuration brings it
        with noting_passes([*networks_of(self.method).values(), vae.encoder, vae.decoder]) as passes:
            self.whole()
        return passes

    def bare(self) -> None:
        """The same passes, backward where the edit trains, in the networks as they are loaded."""
        with self.model.autoencoder():
            for noted in self.passes:
                noted.again()


def short_edits(
    overrides: Sequence[str], steps: int, source: str, target: str
) -> tuple[dict[str, ShortEdit], dict[str, str]]:
    """Of each published editor an edit with so many steps a phase; and why there is none, as without a ControlNet.

    overrides  as for assd.run
    """
    edits: dict[str, ShortEdit] = {}
    skipped: dict[str, str] = {}
    for name in EDITORS:
        choice = f"method={name}"
        try:
            cfg = composed([choice, *few_steps([choice], steps), *overrides])
            edits[name] = ShortEdit(instantiate(cfg.method, _convert_="all"), source, target, cfg.seed)
        except EXPECTED as error:
            skipped[name] = sentence(error).splitlines()[0]
    return edits, skipped
