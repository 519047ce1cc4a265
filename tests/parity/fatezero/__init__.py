"""FateZero: prompt alignment, masks, layers, inversion, and edits with every kind of control."""

from collections.abc import Iterator

from tests.parity.fatezero.edits import edits
from tests.parity.fatezero.helpers import given_maps, probes, prompt_helpers, tables, used_in_modes
from tests.parity.fatezero.layers import forward_passes, single_layers
from tests.parity.fatezero.setup import Network
from tests.parity.points import Case, Point


def points(case: Case) -> Iterator[Point]:
    """All of them, the earliest computed first."""
    network = Network(case)
    yield from probes(case, network)
    yield from prompt_helpers(case)
    yield from tables(case, network)
    yield from given_maps(case)
    yield from used_in_modes(case, network)
    yield from single_layers(case, network)
    yield from forward_passes(case, network)
    for part in case.facts["parts"]:
        yield from edits(case, network, part)
