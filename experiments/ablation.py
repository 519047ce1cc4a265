"""The ablation study: `python -m experiments.ablation`, the paper's section on ablations and its figure 4.

Runs (or reuses) each ablation on the embedded pairs, with three seeds or as many as `--seeds` says; writes table.md,
table.tex, figure4.csv (the same table, tidy) and figure4.png, whose rows add one component at a time. Differences are
paired: to `video_dds`, the method without components, and to `full`, the method with all of them.
"""

from pathlib import Path

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
REFERENCES = ("video_dds", "full")  # what a component does when it is added alone, and when it alone is left out


def figure4(runs: dict[str, list[Path]], pair: TextVideoPair, footage: Footage) -> Image.Image:
    """The rows of the paper's figure 4, between source and true edit; of several seeds, the first."""
    rows = {"source": to_bytes(footage.frames)}
    rows |= edits({label: runs[name][0] for name, label in FIGURE_4.items() if name in runs}, pair)
    if footage.truth is not None:
        rows["true edit"] = to_bytes(footage.truth)
    return pictures.sheet(pair.prompts, rows)


@one_sentence()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "ablation", pairs=12, more={"--seeds": {"type": int, "default": SEEDS}})
    choices = [f"+ablation={','.join(ABLATIONS)}", f"seed={','.join(map(str, range(options.seeds)))}"]
    found = by_choice(sweep(options.output, options.pairs, choices, options.overrides), "ablation")
    named = [(name, run) for name in ABLATIONS for run in found.get(name, [])]
    scores = collect([run for _, run in named], [name for name, _ in named])
    summaries = {reference: summarize(scores, reference) for reference in REFERENCES if reference in found}
    summary = summaries.get(REFERENCES[0], summarize(scores))

    def parts(form: str) -> list[str]:
        differences = [render_differences(compared, form, reference) for reference, compared in summaries.items()]
        return [render(summary, form, notes=failures(scores)), *differences]

    print(write_table(options.output, "table", parts))
    pairs = first_pairs(composed(options.overrides), options.pairs)
    leave(options.output, "figure4", [figure4(found, *pair) for pair in pairs], summary)


if __name__ == "__main__":
    main()
