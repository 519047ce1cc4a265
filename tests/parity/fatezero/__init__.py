"""FateZero: prompt alignment, masks, layers, inversion, and edits with every kind of control."""

from collections.abc import Iterator

from tests.parity.fatezero.edits import edits
from tests.parity.fatezero.helpers import given_maps, probes, prompt_helpers, tables, used_in_modes
from tests.parity.fatezero.layers import forward_passes, single_layers
from tests.parity.fatezero.setup import Network
from tests.parity.points import Case, Point, in_turn


def points(case: Case) -> Iterator[Point]:
    """All of them, the earliest computed first."""
    network = Network(case)
    yield from in_turn(
        probes(case, network),
        prompt_helpers(case),
        tables(case, network),
        given_maps(case),
        used_in_modes(case, network),
        single_layers(case, network),
        forward_passes(case, network),
        *(edits(case, network, part) for part in case.facts["parts"]),
    )
