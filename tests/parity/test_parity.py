"""Every recorded case that is here agrees, point by point."""

import os
from pathlib import Path

import pytest

from tests.parity.points import Case, points

HOME = Path(os.environ.get("ASSD_PARITY", Path(__file__).parents[3] / "shared" / "parity"))
CASES = sorted(file.parent for file in HOME.glob("*/seed1/case.json"))
if not CASES:
    pytest.skip(f"{HOME} has no recorded cases: name their folder in ASSD_PARITY", allow_module_level=True)


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.parent.name)
def test_every_point_is_within_its_tolerance(folder):
    found = list(points(Case(folder)))
    assert found
    assert not [str(point) for point in found if not point.holds]
