"""What FiVE-Bench's reader is given."""

import shutil
from pathlib import Path

from tests.bad_inputs.entry import BadInput
from tests.bad_inputs.making import both, cut
from tests.data.five_files import write_five

EDIT = "assd.run output={here}/out device=cpu tracking.mode=disabled dataset=five dataset.root={here}/five"


def published(here: Path) -> None:
    """The small benchmark in FiVE-Bench's files."""
    write_five(here / "five")


def without_masks(here: Path) -> None:
    """bmasks.zip was never unpacked."""
    published(here)
    shutil.rmtree(here / "five" / "bmasks")


FIVE = {
    "nothing there": BadInput(command=EDIT, thing="edit1_FiVE.json does not exist", remedy="dataset.root must be"),
    "a manifest cut off": BadInput(
        make=both(published, cut("five/edit_prompt/edit4_FiVE.json", 0.7)),
        command=EDIT,
        thing="edit4_FiVE.json",
        remedy="get it again",
    ),
    "no masks": BadInput(make=without_masks, command=EDIT, thing="0001_bus", remedy="unpacked images.zip and bmasks"),
}
