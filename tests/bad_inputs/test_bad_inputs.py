"""Each bad input is answered in one sentence that names the thing and the remedy, and costs no file that was there."""

from pathlib import Path

import pytest

from tests.bad_inputs.entry import digests
from tests.bad_inputs.table import BAD_INPUTS

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("what", BAD_INPUTS)
def test_a_bad_input_is_answered(what: str, tmp_path: Path) -> None:
    """An exit code that is no success, no traceback, the sentence, and every file as it was."""
    bad = BAD_INPUTS[what]
    bad.make(tmp_path)
    before = digests(tmp_path)
    outcome = bad.answer(tmp_path)
    assert outcome.code != 0, outcome.text
    assert "Traceback" not in outcome.text
    assert "unexpected" not in outcome.text, outcome.text
    missing = [part for part in bad.parts(tmp_path) if not outcome.says(part)]
    assert not missing, outcome.text
    assert bad.touched(before, digests(tmp_path)) == []


def test_there_are_enough_of_them() -> None:
    """Of every kind, sixty in all."""
    assert len(BAD_INPUTS) >= 60
