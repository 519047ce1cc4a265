"""The choice of the open parameters: `python -m experiments.tune`, one grid per parameter, the others at their default.

On the embedded world's tuning pairs, none of which is among the 30 that tables are made of. Writes one table per
parameter into tune.md, with paired differences to the default value, and tune.csv.
"""

import pandas as pd
from omegaconf import OmegaConf

from assd.config import composed
from assd.errors import one_sentence, require
from assd.files import write_text
from evaluation.comparison import collect, failures, summarize
from evaluation.scores import EDITED
from evaluation.tables import render
from experiments.common import arguments, by_choice, sweep

GRIDS: dict[str, tuple[float, ...]] = {
    "loss.video.rule.tau": (0.02, 0.05, 0.1, 0.2, 0.5),
    "loss.video.rule.gamma": (0.5, 0.67, 1.0),
    "loss.joint_guidance.weight": (0.25, 0.5, 1.0),
    "attention.lam": (0.0, 0.4, 0.8, 1.0),
    "attention.layers": (1, 2, 3),
    "key_frame_stride": (1, 2, 4),
    "guidance_scale": (2.0, 4.0, 7.5),
}
METRICS = ("edit_success", "clip_text", "contamination", "truth_psnr", "warp_error")  # what a value is chosen by


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "tune", pairs=4)
    overrides = ["dataset.split=tuning", f"metric=[{','.join(METRICS)}]", *options.overrides]
    cfg = composed(overrides)
    defaults = {parameter: OmegaConf.select(cfg, parameter) for parameter in GRIDS}
    touched = [override for override in options.overrides if override.split("=")[0] in GRIDS]
    require(not touched, f"{', '.join(touched)} would stand against the grid: change the default in conf/ instead")
    (by_default,) = sweep(options.output, options.pairs, [], overrides)
    texts, tables = [], []
    for parameter, grid in GRIDS.items():
        others = ",".join(str(value) for value in grid if value != defaults[parameter])
        found = by_choice(sweep(options.output, options.pairs, [f"{parameter}={others}"], overrides), parameter)
        runs = {value: found[str(value)][0] for value in grid if str(value) in found}
        runs = dict(sorted({**runs, defaults[parameter]: by_default}.items()))
        missing = [f"{parameter}={value}: no run" for value in grid if value not in runs]
        scores = collect([*runs.values()], [f"{parameter}={value}" for value in runs])
        scores = scores[scores.video == EDITED]
        default = f"{parameter}={defaults[parameter]}"
        summary = summarize(scores, default)
        texts.append(f"## {parameter}\n\n{render(summary, 'md', default, [*missing, *failures(scores)])}")
        tables.append(summary)
    write_text(options.output / "tune.md", "\n".join(texts))
    pd.concat(tables).to_csv(options.output / "tune.csv", index=False)
    print("\n".join(texts))


if __name__ == "__main__":
    main()
