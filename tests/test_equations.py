"""The paper's equations in the source."""

import re
from pathlib import Path

import pytest

ASSD = Path(__file__).parent.parent / "assd"
ROOMS = ("diffusion", "methods/score_distillation", "shapes")  # other methods cite other papers
SOURCE = {path: path.read_text(encoding="utf-8") for room in ROOMS for path in (ASSD / room).rglob("*.py")}


@pytest.mark.parametrize("number", range(1, 14))
def test_each_equation_has_one_home(number):
    """Whoever looks for an equation by its number finds the one place that implements it.

    An equation of another paper stands behind its authors and year: `Song et al. 2021, Eq. 12`.
    """
    ours = rf"(?<!\d{{4}}, )Eq\. {number}\b"
    homes = [path.name for path, text in SOURCE.items() for _ in re.finditer(ours, text)]
    assert len(homes) == 1, f"Eq. {number} is named in {homes}"
