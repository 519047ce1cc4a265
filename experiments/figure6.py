"""Figure 6, the video along the optimisation: `python -m experiments.figure6`.

Edits each pair and decodes the latent at steps in between. Writes figure6.png, figure6.csv (CLIP text alignment and,
where it is among the metrics, contamination at each of these steps).
"""

from collections.abc import Iterator

import pandas as pd
from hydra.utils import instantiate
from jaxtyping import Float
from torch import Tensor

from assd.config import composed
from assd.data.pairs import Footage, TextVideoPair
from assd.data.video import to_bytes
from assd.errors import one_sentence
from assd.methods.method import Checkpoint, Request
from assd.methods.score_distillation import ScoreDistillation
from assd.runs import pictures
from evaluation.case import Case, Metric, NoMeaning
from experiments.common import arguments, first_pairs, leave

STAGES = 8  # states shown after the source
METRICS = ("clip_text", "contamination")


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "figure6", pairs=1)
    cfg = composed(options.overrides)
    every = -(-cfg.method.num_steps // STAGES)  # rounded up
    stages_alone = {"checkpoint_every": every, "checkpoint_seconds": float("inf")}
    method: ScoreDistillation = instantiate(cfg.method, **stages_alone, _convert_="all")
    metrics: list[Metric] = [instantiate(cfg.metric[name]) for name in METRICS if name in cfg.metric]
    records, sheets = [], []
    for pair, footage in first_pairs(cfg, options.pairs):
        rows = {}
        for step, frames in stages(method, pair, footage):
            rows[f"step {step}"] = to_bytes(frames)
            case = Case(frames, pair.prompts, footage)
            records.append({"pair": pair.id, "step": step, **{metric.name: value(metric, case) for metric in metrics}})
        if footage.truth is not None:
            rows["true edit"] = to_bytes(footage.truth)
        sheets.append(pictures.sheet(pair.prompts, rows))
    table = pd.DataFrame(records).astype({metric.name: float for metric in metrics})
    leave(options.output, "figure6", sheets, table, table.drop(columns="pair").groupby("step").mean())


def value(metric: Metric, case: Case) -> float:
    """A metric's value, NaN where it has none."""
    try:
        return metric(case)
    except NoMeaning:
        return float("nan")


def stages(
    method: ScoreDistillation, pair: TextVideoPair, footage: Footage
) -> Iterator[tuple[int, Float[Tensor, "n 3 H W"]]]:
    """The video before the first step and at each checkpoint, with the number of steps."""
    states = {0: method.model.encode(footage.frames)}

    def remember(checkpoint: Checkpoint, curves: list[dict]) -> None:
        states[checkpoint["step"]] = checkpoint["Z"].clone()

    method(footage, pair.prompts.source, [Request(pair.prompts.target, checkpoint=remember)], pair.clip)
    for step, Z in states.items():
        yield step, method.model.decode(Z)


if __name__ == "__main__":
    main()
