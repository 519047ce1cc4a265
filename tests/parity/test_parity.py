"""Every recorded case that is here agrees, point by point."""

import os
from pathlib import Path

import pytest

from tests.parity.points import Case, points

HOME = Path(os.environ.get("ASSD_PARITY", Path(__file__).parents[3] / "shared" / "parity"))
CASES = sorted(file.parent for file in HOME.glob("*/*/case.json"))


@pytest.mark.skipif(not CASES, reason=f"{HOME} has no recorded cases: name their folder in ASSD_PARITY")
@pytest.mark.parametrize("folder", CASES or [HOME], ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_every_point_is_within_its_tolerance(folder):
    """A method computes what its authors' own code computed, from index tables to final latents."""
    found = list(points(Case(folder)))
    assert found
    assert not [str(point) for point in found if not point.holds]
