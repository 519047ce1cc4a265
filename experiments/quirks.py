"""What the options of two published editors change: `python -m experiments.quirks`, one row an option.

ControlVideo's published quirks, each alone beside the clean default, and in windows, which matter only where a video
has more frames than one; FLATTEN under estimated and under true motion. Differences are paired, to the first row of
each table. Writes quirks.md, quirks.csv and quirks.png. What a row needs and is not here, a ControlNet or the weights
of an optical flow, is named, and the row is left out.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from PIL import Image

from assd.config import composed
from assd.data.video import to_bytes
from assd.errors import EXPECTED, InputError, one_sentence, require, sentence
from assd.files import write_text
from assd.models.store import STORE
from assd.runs import pictures
from evaluation.comparison import collect, failures, summarize
from evaluation.scores import EDITED
from evaluation.tables import render
from experiments.common import arguments, edits, first_pairs, leave, sweep

CLEAN = "the default"
WINDOW = "method.window=3"  # of the 8 frames of the embedded clips
TABLES: dict[str, tuple[str, dict[str, list[str]]]] = {  # heading -> the method, and of each row its overrides
    "ControlVideo": (
        "control_video",
        {
            CLEAN: [],
            "residuals_in_place": ["method.residuals_in_place=true"],
            "wrap_control_frames": ["method.wrap_control_frames=true"],
            "interpolation=average": ["method.interpolation=average"],
            "window=3": [WINDOW],
        },
    ),
    "ControlVideo in windows of 3 frames": (
        "control_video",
        {"window_sees=keys": [WINDOW], "window_sees=first_and_last": [WINDOW, "method.window_sees=first_and_last"]},
    ),
    "FLATTEN": (
        "flatten",
        {"flow=dis": [], "flow=true": ["method.flow=true"], "flow=raft": ["method.flow=raft"]},
    ),
}


def missing(overrides: Sequence[str]) -> str:
    """Why a method can't be built here; nothing where it can."""
    try:
        instantiate(composed([*overrides]).method, _convert_="all")
    except EXPECTED as error:
        return sentence(error).splitlines()[0]
    finally:
        STORE.clear()  # the runs load their models themselves
    return ""


def edited(output: Path, pairs: int, rows: dict[str, list[str]]) -> tuple[dict[str, Path], list[str]]:
    """The run of each row that can be had, and why the others can't."""
    runs: dict[str, Path] = {}
    notes: list[str] = []
    for label, overrides in rows.items():
        why = missing(overrides)
        try:
            require(not why, why)
            (runs[label],) = sweep(output, pairs, [], overrides)
        except InputError as error:
            notes.append(f"{label} is left out: {error}")
    return runs, notes


def compared(heading: str, runs: dict[str, Path], notes: list[str]) -> tuple[str, pd.DataFrame]:
    """A table of rows, and of their paired differences to the first one of them."""
    if not runs:
        return "\n\n".join([f"## {heading}", *notes]) + "\n", pd.DataFrame()
    scores = collect([*runs.values()], [*runs])
    scores, reference = scores[scores.video == EDITED], next(iter(runs))
    summary = summarize(scores, reference)
    text = render(summary, "md", reference, [*notes, *failures(scores)])
    return f"## {heading}\n\n{text}", summary.assign(table=heading)


def sheets(runs: dict[str, Path], overrides: Sequence[str], pairs: int) -> list[Image.Image]:
    """Of each pair the source and its edits, one below the other."""
    found = first_pairs(composed([*overrides]), pairs)
    return [
        pictures.sheet(pair.prompts, {"source": to_bytes(footage.frames), **edits(runs, pair)})
        for pair, footage in found
    ]


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "quirks", pairs=4)
    texts, tables, pictured = [], [], {}
    for heading, (method, rows) in TABLES.items():
        whole = {label: [f"method={method}", *overrides, *options.overrides] for label, overrides in rows.items()}
        runs, notes = edited(options.output, options.pairs, whole)
        text, table = compared(heading, runs, notes)
        texts.append(text)
        tables.append(table)
        pictured |= {f"{method}, {label}": run for label, run in runs.items()}
    write_text(options.output / "quirks.md", "\n".join(texts))
    print("\n".join(texts))
    require(bool(pictured), "none of the rows could be edited: quirks.md says what each needs")
    leave(options.output, "quirks", sheets(pictured, options.overrides, options.pairs), pd.concat(tables))


if __name__ == "__main__":
    main()
