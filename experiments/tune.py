"""The choice of the open parameters: `python -m experiments.tune`, or of another method's: `... tune method=tokenflow`.

One grid a parameter (`experiments/grids.yaml`), the others at their default, on the embedded world's tuning pairs, none
of which is among the 30 that tables are made of. Writes one table per parameter into tune.md, with paired differences
to the default value, and tune.csv.
"""

from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from assd.config import by_key, composed
from assd.errors import one_sentence, require
from assd.files import write_text
from evaluation.comparison import collect, failures, summarize
from evaluation.scores import EDITED
from evaluation.tables import render
from experiments.common import arguments, by_choice, chosen_method, sweep

GRIDS = Path(__file__).with_name("grids.yaml")
METRICS = ("edit_success", "clip_text", "contamination", "truth_psnr", "warp_error", "flicker")  # what chooses a value


def worded(value: object) -> str:
    """A value as a command line has it: `0.1`, `[50,949]`."""
    return str(value).replace(" ", "")


def grids(method: str) -> dict[str, list[str]]:
    """The values of each parameter of a method. Raises InputError for a method that has none to try."""
    known = OmegaConf.load(GRIDS)
    require(method in known, f"method must be one of {', '.join(map(str, known))}; got {method!r}: add it to {GRIDS}")
    return {str(parameter): [worded(value) for value in values] for parameter, values in known[method].items()}


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "tune", pairs=8)
    overrides = ["dataset.split=tuning", f"metric=[{','.join(METRICS)}]", *options.overrides]
    cfg, given = composed(overrides), by_key(options.overrides)
    of_method = grids(chosen_method(options.overrides))
    touched = [f"{parameter}={value}" for parameter, value in given.items() if parameter in of_method]
    require(not touched, f"{', '.join(touched)} would stand against the grid: change the default in conf/ instead")
    (by_default,) = sweep(options.output, options.pairs, [], overrides)
    texts, tables = [], []
    for parameter, values in of_method.items():
        default = worded(OmegaConf.select(cfg, parameter))
        others = f"{parameter}={','.join(value for value in values if value != default)}"
        found = by_choice(sweep(options.output, options.pairs, [others], overrides), parameter)
        runs = {default: by_default} | {value: run for value, (run, *_) in found.items() if value in values}
        runs = {value: runs[value] for value in dict.fromkeys([*values, default]) if value in runs}
        missing = [f"{parameter}={value}: no run" for value in values if value not in runs]
        scores = collect([*runs.values()], [f"{parameter}={value}" for value in runs])
        scores = scores[scores.video == EDITED]
        summary = summarize(scores, f"{parameter}={default}")
        table = render(summary, "md", f"{parameter}={default}", [*missing, *failures(scores)])
        texts.append(f"## {parameter}\n\n{table}")
        tables.append(summary)
    write_text(options.output / "tune.md", "\n".join(texts))
    pd.concat(tables).to_csv(options.output / "tune.csv", index=False)
    print("\n".join(texts))


if __name__ == "__main__":
    main()
