"""The paper's equations in the source."""

import re
from pathlib import Path

import pytest

import assd

SOURCE = {path: path.read_text() for path in Path(assd.__file__).parent.rglob("*.py")}


@pytest.mark.parametrize("number", range(1, 14))
def test_each_equation_has_one_home(number):
    """Whoever looks for an equation by its number finds the one place that implements it."""
    homes = [path.name for path, text in SOURCE.items() for _ in re.finditer(rf"Eq\. {number}\b", text)]
    assert len(homes) == 1, f"Eq. {number} is named in {homes}"
