"""Figure 7, the sweep of lambda: `python -m experiments.figure7`.

Edits pairs under several lambda of the weighted attention fusion. Writes figure7.png (a row of frames per lambda),
figure7-curve.png (edits made against preservation) and figure7.csv.
"""

from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import DictConfig

from assd.config import composed
from assd.data.video import to_bytes
from assd.errors import one_sentence, require
from assd.runs import pictures
from evaluation.comparison import collect, failures, summarize
from experiments.common import arguments, by_choice, edits, first_pairs, leave, sweep

LAMBDA = "attention.lam"
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def label(lam: float) -> str:
    """A row's name."""
    return f"lambda = {lam}"  # the font of the sheets has no Greek


def measured(cfg: DictConfig, summary: pd.DataFrame, *keys: str) -> str:
    """The full name of the first of these metrics that has values: not every dataset has masks or truth."""
    names = [instantiate(cfg.metric[key]).name for key in keys if key in cfg.metric]
    found = [name for name in names if (summary.metric == name).any()]
    require(bool(found), f"the figure needs one of the metrics {', '.join(keys)}: choose it with metric=[...]")
    return found[0]


def point(lam: float, cells: dict[str, pd.Series]) -> dict[str, float]:
    """One row of figure7.csv: lambda, and of each axis the mean and its interval."""
    row = {"lambda": lam}
    for axis, cell in cells.items():
        row |= {axis: float(cell["mean"]), f"{axis}_low": float(cell["low"]), f"{axis}_high": float(cell["high"])}
    return row


def curve(points: pd.DataFrame, names: dict[str, str], file: Path) -> None:
    """Edits made against preservation, one point per lambda; beside it both measures over lambda, with intervals."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    against, *over = figure.subplots(1, 3)
    against.plot(points.kept, points.made, "o-")
    for lam, kept, made in points[["lambda", "kept", "made"]].itertuples(index=False):
        against.annotate(f"{lam}", (kept, made), xytext=(0, 8), textcoords="offset points", ha="center")
    against.set(xlabel=names["kept"], ylabel=names["made"], title="labelled by λ")
    against.margins(0.1, 0.2)
    for axes, axis in zip(over, ("kept", "made")):
        errors = [points[axis] - points[f"{axis}_low"], points[f"{axis}_high"] - points[axis]]
        axes.errorbar(points["lambda"], points[axis], yerr=errors, fmt="o-", capsize=3)
        axes.set(xlabel="λ", ylabel=names[axis])
    for axes in (against, *over):
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "figure7", pairs=4)
    lambdas = f"{LAMBDA}={','.join(map(str, LAMBDAS))}"
    found = by_choice(sweep(options.output, options.pairs, [lambdas], options.overrides), LAMBDA)
    runs = {label(lam): found[str(lam)][0] for lam in LAMBDAS if str(lam) in found}
    cfg = composed(options.overrides)
    scores = collect([*runs.values()], [*runs])
    print(*failures(scores), sep="\n")
    summary = summarize(scores)
    names = {
        "kept": measured(cfg, summary, "psnr", "warp_error"),
        "made": measured(cfg, summary, "edit_success", "clip_text"),
    }
    cells = summary.set_index(["method", "metric"])
    points = [
        point(lam, {axis: cells.loc[(label(lam), name)] for axis, name in names.items()})
        for lam in LAMBDAS
        if all((label(lam), name) in cells.index for name in names.values())
    ]
    sheets = []
    for pair, footage in first_pairs(cfg, options.pairs):
        rows = {"source": to_bytes(footage.frames)} | edits(runs, pair)
        sheets.append(pictures.sheet(pair.prompts, rows))
    table = pd.DataFrame(points)
    curve(table, names, options.output / "figure7-curve.png")
    means = table[["lambda", "kept", "made"]].rename(columns=names).set_index("lambda")
    leave(options.output, "figure7", sheets, table, means)


if __name__ == "__main__":
    main()
