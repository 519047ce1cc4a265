"""The ablation study: `python -m experiments.ablation`, the paper's section on ablations and its figure 4.

Runs (or reuses) each ablation on the embedded pairs, with three seeds or as many as `--seeds` says; writes table.md,
table.tex, figure4.csv and components.csv (the same, tidy) and figure4.png, whose rows add one component at a time. What
a component does is a paired difference between two ablations that differ in it alone.
"""

from pathlib import Path

import pandas as pd
from PIL import Image

from assd.config import composed
from assd.data.pairs import Footage, TextVideoPair
from assd.data.video import to_bytes
from assd.errors import one_sentence
from assd.runs import pictures
from evaluation.comparison import collect, failures, summarize
from evaluation.tables import render, render_differences
from experiments.common import arguments, by_choice, edits, first_pairs, leave, sweep, write_table

ABLATIONS = (
    "video_dds",
    "assd_only",
    "no_joint_guidance",
    "full",
    "no_waf",
    "no_smoothing",
    "no_mask",
    "sds",
)
FIGURE_4 = {
    "video_dds": "Video-DDS",
    "assd_only": "+ ASSD",
    "no_joint_guidance": "+ attention fusion",
    "full": "+ joint guidance",
}
SEEDS = 3
COMPONENTS = {  # what is added: the ablation that has it, and the one that differs in nothing else
    "reference branch, to SDS": ("video_dds", "sds"),
    "window and mask, to Video-DDS": ("assd_only", "video_dds"),
    "attention fusion, to these": ("no_joint_guidance", "assd_only"),
    "joint guidance, to these": ("full", "no_joint_guidance"),
    "all of it, to Video-DDS": ("full", "video_dds"),
    "attention fusion, last of all": ("full", "no_waf"),
    "window, last of all": ("full", "no_smoothing"),
    "mask, last of all": ("full", "no_mask"),
}


def figure4(runs: dict[str, list[Path]], pair: TextVideoPair, footage: Footage) -> Image.Image:
    """The rows of the paper's figure 4, between source and true edit; of several seeds, the first."""
    rows = {"source": to_bytes(footage.frames)}
    rows |= edits({label: runs[name][0] for name, label in FIGURE_4.items() if name in runs}, pair)
    if footage.truth is not None:
        rows["true edit"] = to_bytes(footage.truth)
    return pictures.sheet(pair.prompts, rows)


def added(scores: pd.DataFrame) -> pd.DataFrame:
    """What each of COMPONENTS changes, as `summarize` has it: a row each, of those whose two ablations are there."""
    rows = []
    for component, (with_it, without) in COMPONENTS.items():
        if {with_it, without} <= {*scores.method}:
            compared = summarize(scores[scores.method.isin((with_it, without))], without)
            rows.append(compared[compared.method == with_it].assign(method=component))
    return pd.concat(rows) if rows else pd.DataFrame(columns=["difference"])


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "ablation", pairs=12, more={"--seeds": {"type": int, "default": SEEDS}})
    choices = [f"+ablation={','.join(ABLATIONS)}", f"seed={','.join(map(str, range(options.seeds)))}"]
    found = by_choice(sweep(options.output, options.pairs, choices, options.overrides), "ablation")
    named = [(name, run) for name in ABLATIONS for run in found.get(name, [])]
    scores = collect([run for _, run in named], [name for name, _ in named])
    summary, components = summarize(scores), added(scores)

    def parts(form: str) -> list[str]:
        differences = [] if components.empty else [render_differences(components, form, "What each component changes")]
        return [render(summary, form, notes=failures(scores)), *differences]

    print(write_table(options.output, "table", parts))
    components.to_csv(options.output / "components.csv", index=False)
    pairs = first_pairs(composed(options.overrides), options.pairs)
    leave(options.output, "figure4", [figure4(found, *pair) for pair in pairs], summary)


if __name__ == "__main__":
    main()
