"""The command line of the report."""

import argparse
from pathlib import Path

from assd.errors import one_sentence, require
from assd.runs.sweep import runs_in
from evaluation import report
from evaluation.report.page import damaged


@one_sentence()
def main() -> None:
    """Writes the page and says where it is; of a sweep's folder it is about the sweep's runs."""
    parser = argparse.ArgumentParser(
        description=report.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m evaluation.report",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path(report.REPORT_HTML))
    options = parser.parse_args()
    runs = runs_in(options.runs)
    print(report.write_report(runs, options.output))
    left_out = damaged(runs)
    require(not left_out, f"the page is about the other pairs alone: {'; '.join(left_out)}")


if __name__ == "__main__":
    main()
