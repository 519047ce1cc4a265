"""One self-contained page about a run or a sweep: `python -m evaluation.report RUNS... [--output report.html]`.

Videos, pictures, style and script are inside the page: it opens from a file, without network.
"""

from collections.abc import Iterable
from pathlib import Path

from assd.files import write_text
from evaluation.report.page import page

REPORT_HTML = "report.html"


def write_report(paths: Iterable[Path], output: Path) -> Path:
    """Writes the page about run directories; returns where it is."""
    paths = list(paths)
    write_text(output, page(paths[0].resolve().name if len(paths) == 1 else output.parent.resolve().name, paths))
    return output
