"""Comparisons: which runs make up one row of a table, what it is called, and its means over pairs.

Runs that differ in their seed alone are one method, each pair's value the mean over seeds. The unedited source, and the
source through the autoencoder, are rows of their own, and so are runs of `method=reconstruction`. None of them edits,
and none is ranked: they say where an edit begins, and how much of the source it can keep at most.
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from assd.errors import require
from assd.runs.reader import edits_of, is_run, read_dataset, run_overrides
from evaluation import intervals
from evaluation.scores import failed, read_scores, values

PAPER_CSV = Path(__file__).with_name("paper_table1.csv")
UNEDITED = {"source": "source, unedited", "reconstruction": "source, through the autoencoder"}
RECONSTRUCTING = "method=reconstruction"
INVERTING = {"method.inversion=true": "DDIM inversion and back"}
MEANS = ["method", "metric", "better", "mean", "low", "high", "pairs", "mean_shared"]
DIFFERENCES = ["difference", "difference_low", "difference_high", "difference_pairs", "difference_unequal"]


def row_names(runs: list[Path]) -> list[str]:
    """What sets each run apart: its overrides in any order, without its seed, and without those that all share.

    Runs of the same overrides are not seeds of one method: their folders set them apart.

    >>> row_names([Path("ablation=full,device=cpu,seed=1"), Path("ablation=no_waf,device=cpu"), Path("device=cpu")])
    ['full', 'no_waf', 'default']
    >>> row_names([Path("loss=[assd,sds],seed=2")])
    ['loss=[assd,sds]']
    >>> row_names([Path("method=reconstruction,method.inversion=true"), Path("method=tokenflow")])
    ['source, through the autoencoder, DDIM inversion and back', 'tokenflow']
    """
    every = [sorted(run_overrides(run)) for run in runs]
    overrides = [[part for part in parts if not re.fullmatch(r"seed=\d+", part)] for parts in every]
    differ = len(set(map(tuple, overrides))) > 1
    shared = set.intersection(*map(set, overrides)) if differ else set()
    shown = [[part for part in parts if part not in shared] for parts in overrides]
    names = [",".join(part.removeprefix("ablation=").removeprefix("method=") for part in parts) for parts in shown]
    names = [name or "default" for name in names]
    folders = [run.resolve() for run in runs]
    places = shortest_ends([folder.parent for folder in folders])
    if len(set(map(tuple, every))) == len(every):
        places = [""] * len(runs)
    beside = Counter(zip(places, map(tuple, every)))
    own = [beside[place, tuple(parts)] > 1 for place, parts in zip(places, every)]  # the same run beside it
    names = [folder.name if alone else name for folder, name, alone in zip(folders, names, own)]
    return [
        reconstruction_name(parts) if RECONSTRUCTING in given else "/".join(filter(None, [place, name]))
        for given, parts, name, place in zip(overrides, shown, names, places)
    ]


def shortest_ends(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell different folders apart.

    >>> shortest_ends([Path("/old/outputs"), Path("/new/outputs"), Path("/new/outputs")])
    ['old/outputs', 'new/outputs', 'new/outputs']
    """
    every_length = (["/".join(folder.parts[-length:]) for folder in folders] for length in itertools.count(1))
    return next(ends for ends in every_length if len(set(ends)) == len(set(folders)))


def reconstruction_name(shown: list[str]) -> str:
    """What a run of `method=reconstruction` is called: an unedited row, and what else sets it apart."""
    more = [INVERTING.get(part.lower(), part) for part in shown if part != RECONSTRUCTING]
    return ", ".join([UNEDITED["reconstruction"], *more])


def by_row(runs: list[Path]) -> dict[str, Path]:
    """The first run of each row."""
    first: dict[str, Path] = {}
    for name, run in zip(row_names(runs), runs):
        first.setdefault(name, run)
    return first


def collect(runs: list[Path], names: list[str] | None = None) -> pd.DataFrame:
    """The scores of all runs, with a column `method`: their names, by default what sets them apart; and with `clip`.

    The unedited source is taken from every run that has it; from runs of several sizes, once for each size.
    """
    parts, sizes = [], [video_size(run) for run in runs]
    several = len(set(sizes)) > 1
    for run, name, size in zip(runs, names or row_names(runs), sizes):
        scores = read_scores(run)
        suffix = f" ({size})" if several else ""
        unedited = {video: label + suffix for video, label in UNEDITED.items()}
        own = name + suffix if is_unedited(name) else name
        parts.append(scores.assign(method=scores.video.map(unedited).fillna(own)))
    scores, clips = pd.concat(parts, ignore_index=True), clips_of(runs)
    return scores.assign(clip=[clips.get(pair, pair) for pair in scores.pair])


def clips_of(runs: Sequence[Path]) -> dict[str, str]:
    """The clip that each pair edits, as far as a finished edit says it."""
    edits = [edit for run in runs for edit in edits_of(run) if not edit.damage]
    return {edit.id: edit.clip for edit in edits if edit.clip}


def video_size(run: Path) -> str:
    """`16 frames of 256 x 256`, the canvas on which a run was scored and on which PSNR, SSIM and warp error depend.

    Nothing where no configuration says it, or each video has a size of its own.
    """
    dataset = read_dataset(run) if is_run(run) else {}
    return f"{dataset.num_frames} frames of {dataset.width} x {dataset.height}" if dataset.get("width") else ""


def per_pair(scores: pd.DataFrame) -> pd.DataFrame:
    """One value for each method, metric and pair: the mean over seeds."""
    return values(scores).groupby(["method", "metric", "better", "pair"], sort=False).value.mean().reset_index()


def summarize(scores: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """The tidy table: method, metric, better, mean, low, high, pairs, and mean_shared, over the pairs that all methods
    edited; with a reference method, the mean paired difference to it: difference, difference_low, difference_high,
    difference_pairs, those that both have, and difference_unequal, those of them that differ. A method without any
    value has one row, at the end, of 0 pairs; where no method has one, there is no row.

    scores  as `collect` leaves them; pairs on one `clip` are drawn together, and without that column each has its own

    Raises InputError when there is no method of that name.
    """
    by_pair = per_pair(scores)
    known = scores.dropna(subset="clip") if "clip" in scores else None
    clips = None if known is None else dict(zip(known["pair"], known["clip"]))
    methods = ordered(scores.method)
    require(
        reference is None or reference in methods,
        f"--reference must be one of {', '.join(methods)}; got {reference!r}",
    )
    cells = {key: part.set_index("pair").value for key, part in by_pair.groupby(["method", "metric"], sort=False)}
    rows = []
    for metric, better in dict.fromkeys(zip(by_pair.metric, by_pair.better)):
        having = [method for method in methods if (method, metric) in cells]
        edited = [method for method in having if not is_unedited(method)] or having
        shared = sorted(set.intersection(*(set(cells[method, metric].index) for method in edited)))
        for method in having:
            mean = intervals.mean(cells[method, metric], clips)
            row = {"method": method, "metric": metric, "better": better}
            row |= {"mean": mean.mean, "low": mean.low, "high": mean.high, "pairs": mean.count}
            row["mean_shared"] = cells[method, metric].reindex(shared).mean()
            if reference is not None and (reference, metric) in cells and method != reference:
                differences = (cells[method, metric] - cells[reference, metric]).dropna()
                change = intervals.mean(differences, clips)
                row |= {"difference": change.mean, "difference_low": change.low, "difference_high": change.high}
                row |= {"difference_pairs": change.count, "difference_unequal": int(differences.ne(0).sum())}
            rows.append(row)
    empty = [method for method in methods if method not in set(by_pair.method)] if rows else []
    first = {key: rows[0][key] for key in ("metric", "better")} if rows else {}
    rows += [{"method": method, **first, "pairs": 0} for method in empty]
    return pd.DataFrame(rows, columns=MEANS + (DIFFERENCES if reference is not None else []))


def ordered(methods: pd.Series) -> list[str]:
    """Methods as they come, the unedited rows first."""
    found = list(dict.fromkeys(methods))
    unedited = [method for label in UNEDITED.values() for method in found if method.startswith(label)]
    return unedited + [method for method in found if not is_unedited(method)]


def is_unedited(method: str) -> bool:
    """Whether a row is the source's, of whatever size."""
    return method.startswith(tuple(UNEDITED.values()))


def published() -> pd.DataFrame:
    """The paper's table 1, in columns of its own: CLIP model and pairs are not stated, so nothing compares with it."""
    rows = []
    with PAPER_CSV.open(newline="") as file:
        for record in csv.DictReader(file):
            method = f"{record.pop('method')} (published, not measured here)"
            for metric, value in record.items():
                name = f"{metric}, as published" + (" (model and pairs not stated)" if "CLIP" in metric else "")
                rows.append({"method": method, "metric": name, "better": "higher", "mean": float(value)})
    return pd.DataFrame(rows)


def failures(scores: pd.DataFrame) -> list[str]:
    """A sentence for each method that has edits without result, and for each metric that broke, with the first reason.

    With several seeds, a pair is named with its count.
    """
    sentences = []
    for (method, metric), rows in failed(scores).groupby(["method", "metric"], sort=False):
        counts = rows.pair.value_counts().sort_index()
        pairs = ", ".join(f"{pair} ({count} x)" if count > 1 else str(pair) for pair, count in counts.items())
        reason = " ".join(str(rows.reason.iloc[0]).split())  # on one line
        sentences.append(f"{method}: no {metric or 'result'} for {pairs} ({reason})")
    return sentences
