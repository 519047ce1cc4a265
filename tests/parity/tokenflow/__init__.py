"""TokenFlow's recorded points, computed by the classes that edit.

Complete edits go through the method's contract, and every prediction, nearest neighbour and latent is looked at. Single
layers have the processors and hooks that an edit puts on them.
"""

from collections.abc import Iterator

from tests.parity.points import Case, Point, in_turn
from tests.parity.tokenflow.edits import edit_points, per_frame_edit
from tests.parity.tokenflow.helpers import blend_weights, prompts, schedules
from tests.parity.tokenflow.inversion import inversion_points, start_points
from tests.parity.tokenflow.layers import attention_points, block_points, network_points
from tests.parity.tokenflow.setup import RecordingModel, editor


def points(case: Case) -> Iterator[Point]:
    """All of them, the earliest computed first."""
    model = RecordingModel(case)
    pnp, sdedit = (editor(case, model, variant) for variant in ("pnp", "sdedit"))
    yield from in_turn(
        prompts(case),
        schedules(case, pnp, sdedit),
        blend_weights(case),
        attention_points(case, model, pnp),
        block_points(case, model),
        network_points(case, model, pnp),
        inversion_points(case, model),
        start_points(case, pnp, sdedit),
        edit_points(case, pnp),
        edit_points(case, sdedit),
        per_frame_edit(case, sdedit),
    )
