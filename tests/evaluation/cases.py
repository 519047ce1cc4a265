"""Videos under judgement whose scores are known."""

import pytest
import torch
from torch import Tensor

from assd.data.pairs import Footage, Prompts
from assd.shapes.corpus import ClipPair, clip_pairs
from assd.shapes.dataset import footage
from evaluation.case import Case, Metric, NoMeaning

COLOUR_PAIR = next(pair for pair in clip_pairs() if pair.edit == "colour")
BACKGROUND_PAIR = next(pair for pair in clip_pairs() if pair.edit == "background")


def case(frames, pair: ClipPair = COLOUR_PAIR) -> Case:
    """The video that `frames` makes of a pair's footage."""
    known = footage(pair)
    return Case(frames(known), Prompts(pair.source.caption, pair.target.caption), known, known.frames)


def source(known: Footage) -> Tensor:
    """Nothing is edited."""
    return known.frames


def truth(known: Footage) -> Tensor:
    """The edit is perfect."""
    return known.truth


def plain_case(frames: Tensor, masks: Tensor | None = None, of: Tensor | None = None) -> Case:
    """A video of any content against a source, with a mask or none."""
    return Case(frames, Prompts("a", "b"), Footage(frames if of is None else of, 8.0, masks))


def texture(shift: int) -> Tensor:
    """A smooth random texture of 96 x 96 pixels, moved to the right by so many pixels."""
    torch.manual_seed(0)
    coarse = torch.rand(1, 3, 24, 40) * 2 - 1
    fine = torch.nn.functional.interpolate(coarse, size=(96, 160), mode="bicubic").clamp(-1, 1)
    return fine[0, :, :, 32 - shift : 128 - shift]


def no_meaning(metric: Metric, video: Case) -> str:
    """Why a metric has no value for a video."""
    with pytest.raises(NoMeaning) as why:
        metric(video)
    return str(why.value)
