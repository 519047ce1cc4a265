"""TokenFlow's recorded points, computed by the classes that edit.

Complete edits go through the method's contract, and every prediction, nearest neighbour and latent is looked at. Single
layers have the processors and hooks that an edit puts on them.
"""

from collections.abc import Iterator

from tests.parity.points import Case, Point
from tests.parity.tokenflow.edits import edit_points, per_frame_edit
from tests.parity.tokenflow.helpers import blend_weights, prompts, schedules
from tests.parity.tokenflow.inversion import inversion_points, start_points
from tests.parity.tokenflow.layers import attention_points, block_points, network_points
from tests.parity.tokenflow.setup import RecordingModel, editor


def points(case: Case) -> Iterator[Point]:
    """All of them, the earliest computed first."""
    model = RecordingModel(case)
    pnp, sdedit = (editor(case, model, variant) for variant in ("pnp", "sdedit"))
    yield from prompts(case)
    yield from schedules(case, pnp, sdedit)
    yield from blend_weights(case)
    yield from attention_points(case, model, pnp)
    yield from block_points(case, model)
    yield from network_points(case, model, pnp)
    yield from inversion_points(case, model)
    yield from start_points(case, pnp, sdedit)
    yield from edit_points(case, pnp)
    yield from edit_points(case, sdedit)
    yield from per_frame_edit(case, sdedit)
