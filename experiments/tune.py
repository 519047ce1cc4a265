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

GRIDS: dict[str, tuple[object, ...]] = {
    "image_guidance_scale": (1.5, 2.0, 3.0, 4.0),
    "guidance_scale": (2.0, 3.0, 4.0, 7.5),
    "key_frame_stride": (1, 2, 4),
    "loss.joint_guidance.weight": (0.5, 1.0, 2.0),
    "method.timesteps": ([50, 700], [50, 949]),
    "steps.distillation": (20, 30, 60),
    "optimizer.lr": (0.05, 0.1, 0.2),
    "loss.video.rule.tau": (0.02, 0.1, 0.5),
    "loss.video.rule.gamma": (0.5, 0.67, 1.0),
    "attention.lam": (0.0, 0.4, 0.8, 1.0),
    "attention.layers": (1, 2, 3),
}
METRICS = ("edit_success", "clip_text", "contamination", "truth_psnr", "warp_error", "flicker")  # what chooses a value


def worded(value: object) -> str:
    """A value as a command line has it: `0.1`, `[50,949]`."""
    return str(value).replace(" ", "")


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "tune", pairs=8)
    overrides = ["dataset.split=tuning", f"metric=[{','.join(METRICS)}]", *options.overrides]
    cfg = composed(overrides)
    defaults = {parameter: worded(OmegaConf.select(cfg, parameter)) for parameter in GRIDS}
    touched = [override for override in options.overrides if override.split("=")[0] in GRIDS]
    require(not touched, f"{', '.join(touched)} would stand against the grid: change the default in conf/ instead")
    (by_default,) = sweep(options.output, options.pairs, [], overrides)
    texts, tables = [], []
    for parameter, grid in GRIDS.items():
        values = [worded(value) for value in grid]
        others = ",".join(value for value in values if value != defaults[parameter])
        found = by_choice(sweep(options.output, options.pairs, [f"{parameter}={others}"], overrides), parameter)
        runs = {value: found[value][0] for value in values if value in found} | {defaults[parameter]: by_default}
        runs = {value: runs[value] for value in dict.fromkeys([*values, defaults[parameter]]) if value in runs}
        missing = [f"{parameter}={value}: no run" for value in values if value not in runs]
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
