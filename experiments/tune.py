"""The choice of the open parameters: `python -m experiments.tune`, one grid per parameter, the others at their default.

On the embedded world's tuning pairs, none of which is among the 30 that tables are made of. Writes one table per
parameter into tune.md, with paired differences to the default value, and tune.csv.
"""

import pandas as pd
from omegaconf import OmegaConf

from assd.config import composed
from assd.errors import one_sentence
from assd.rundir import write_text
from evaluation.tables import by_method, collect, failures, render, summarize
from experiments.common import arguments, sweep

GRIDS: dict[str, tuple[float, ...]] = {
    "loss.video.rule.tau": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "loss.video.rule.gamma": (0.33, 0.5, 0.67, 0.8, 1.0),
    "attention.lam": (0.0, 0.4, 0.6, 0.8, 1.0),
    "attention.layers": (1, 2, 3, 4),
    "key_frame_stride": (1, 2, 4),
}
METRICS = ("edit_success", "clip_text", "contamination", "truth_psnr", "warp_error")  # what a value is chosen by


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "tune", pairs=8)
    overrides = ["dataset.split=tuning", f"metric=[{','.join(METRICS)}]", *options.overrides]
    cfg = composed(overrides)
    texts, tables = [], []
    for parameter, grid in GRIDS.items():
        default = OmegaConf.select(cfg, parameter)
        others = [value for value in grid if value != default]
        choice = f"{parameter}={','.join(map(str, [default, *others]))}"
        runs = by_method(sweep(options.output / parameter, options.pairs, [choice, *overrides]))
        scores = collect([runs[f"{parameter}={value}"] for value in sorted([default, *others])])
        summary = summarize(scores, f"{parameter}={default}")
        texts.append(f"## {parameter}\n\n{render(summary, 'md', f'{parameter}={default}', failures(scores))}")
        tables.append(summary)
    write_text(options.output / "tune.md", "\n".join(texts))
    pd.concat(tables).to_csv(options.output / "tune.csv", index=False)
    print("\n".join(texts))


if __name__ == "__main__":
    main()
