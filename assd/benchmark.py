"""The benchmark's clips: `python -m assd.benchmark status|fetch|import`.

It is not the paper's own list of 30, which was never published. The clips are other people's: this program says what
is here and where the rest is to be had, fetches DAVIS-2017, and sorts in what was got elsewhere.
"""

import argparse
from pathlib import Path

from rich.table import Table

from assd.console import console as make_console
from assd.data.benchmark.fetch import DAVIS_URL, fetch_davis
from assd.data.benchmark.manifest import SOURCES, SPLITS, data_root, manifest
from assd.data.benchmark.sort_in import import_clips
from assd.errors import one_sentence

console = make_console()


def status(root: Path, split: str) -> None:
    """Prints what is present, and for what is missing where it is to be had."""
    table = Table("pair", "clip", "source", "edit", "here", title=f"data root: {root.resolve()}", title_justify="left")
    missing: dict[str, set[str]] = {}
    entries = manifest(split)
    for entry in entries:
        path = entry.locate(root)
        here = "missing" if path is None else "with masks" if entry.masks(root) else "yes"
        table.add_row(entry.id, entry.clip, entry.source, entry.edit_type, here)
        if path is None:
            missing.setdefault(entry.source, set()).add(entry.clip)
    console.print(table)
    count = sum(entry.locate(root) is not None for entry in entries)
    console.print(f"{count} of {len(entries)} pairs can be edited")
    for name, clips in missing.items():
        source = SOURCES[name]
        console.print(f"\n[bold]{name}[/], {len(clips)} clips missing. {source.to_be_had}", highlight=False)
        console.print(f"  terms: {source.terms}\n  {', '.join(sorted(clips))}", highlight=False, soft_wrap=True)


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="data root; the environment's ASSD_DATA, else ./data")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("status", help="what is here, what is missing and where it is to be had")
    listing.add_argument("--split", choices=SPLITS, default="core")
    fetching = commands.add_parser("fetch", help="download a source that may be downloaded")
    fetching.add_argument("source", choices=["davis"])
    fetching.add_argument("--url", default=DAVIS_URL)
    fetching.add_argument("--sha256", help="refuse a file with another checksum")
    taking = commands.add_parser("import", help="sort in clips that you got elsewhere, by name")
    taking.add_argument("path", type=Path, help="a folder or zip file")
    options = parser.parse_args()
    root = data_root(options.root)
    if options.command == "status":
        status(root, options.split)
    elif options.command == "fetch":
        fetch_davis(root, options.url, options.sha256)
        status(root, "core")
    else:
        taken = import_clips(root, options.path)
        nothing = "nothing: no clip by a name of the benchmark that is not here already"
        console.print(f"taken: {', '.join(taken) or nothing}")


if __name__ == "__main__":
    main()
