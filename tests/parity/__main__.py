"""See the package: one line a point, and exit code 0 only if all agree."""

import sys
from pathlib import Path

from assd.errors import one_sentence, require
from tests.parity.points import Case, points


@one_sentence()
def main(folders: list[str]) -> bool:
    """Whether every point of every case agrees."""
    require(bool(folders), "name at least one case: python -m tests.parity ../shared/parity/<method>/<case> ...")
    return all([check(Case(Path(folder))) for folder in folders])


def check(case: Case) -> bool:
    """Prints a case's points; whether all of them agree."""
    print(f"{case.method}/{case.folder.name}: error of limit, point")
    agree = []
    for point in points(case):
        print(point, flush=True)
        agree.append(point.holds)
    if case.left:
        print(f"not compared, inputs among them: {', '.join(case.left)}")
    print(f"{sum(agree)} of {len(agree)} points within tolerance")
    return bool(agree) and all(agree)


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
