"""What FiVE-Bench's reader, table and export are given."""

import shutil
from pathlib import Path

from tests.bad_inputs.entry import BadInput
from tests.bad_inputs.making import RUN, both, cut, run
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
    "a video that is too short": BadInput(
        make=published,
        command=f"{EDIT} dataset.num_frames=99",
        thing="41 frames",
        remedy="smaller dataset.num_frames",
        writes=("out/*",),
    ),
    "a table of another dataset's run": BadInput(
        make=run, command=f"evaluation.five table {{here}}/{RUN}", thing="no pair of dataset=five", remedy="+experiment"
    ),
    "an export of another dataset's run": BadInput(
        make=run,
        command=f"evaluation.five export {{here}}/{RUN} --output {{here}}/out",
        thing="no edit of FiVE-Bench's pairs",
        remedy="dataset=five",
    ),
}
