"""Prints every bad input, or those that hold a word, with its answer: `python -m tests.bad_inputs [WORD...]`."""

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bad_inputs.entry import digests
from tests.bad_inputs.table import BAD_INPUTS


def main() -> None:
    """The command line."""
    wanted = {what: bad for what, bad in BAD_INPUTS.items() if not sys.argv[1:] or any(w in what for w in sys.argv[1:])}
    table = Table("", "bad input", "code", "files", "answer", title=f"{len(wanted)} bad inputs", show_lines=True)
    for number, (what, bad) in enumerate(wanted.items(), start=1):
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder)
            bad.make(here)
            before = digests(here)
            outcome = bad.answer(here)
            touched = ", ".join(bad.touched(before, digests(here))) or "untouched"
            answer = bad.sentence(outcome, here).replace(folder, "HERE")
        table.add_row(str(number), *map(Text, (what, str(outcome.code), touched, answer)))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
