"""Scores videos that lie there, without the editor: `python -m evaluation.run PATH... [override...]`.

    python -m evaluation.run outputs/default outputs/ablation=no_waf     runs, scored again
    python -m evaluation.run outputs/default metric=[clip_text,psnr]     with these metrics
    python -m evaluation.run theirs dataset=shapes                       another program's videos, theirs/<pair>.mp4
                                                                         or whatever else is a video

A run is scored on the dataset of the command that made it, any other folder on that of `conf/config.yaml`; both by the
metrics of `conf/config.yaml`. Overrides in Hydra's words change all of these. Writes scores.csv into each (and a run's
report again), and prints means over pairs. A run that came from somebody else runs none of their code: what it asks for
must be named in this project's `conf/`, or be allowed by `--trust`.

Exits with 1 where an edit can't be scored because its video or its record is gone or damaged, after everything else is
scored.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.progress import track

from assd.config import composed, in_full, known_targets, quoted
from assd.console import console as make_console
from assd.data.pairs import TextVideoPair
from assd.data.video import find_video
from assd.errors import InputError, one_sentence, require
from assd.runs.directory import EditDirectory
from assd.runs.reader import CONFIG_YAML, ENVIRONMENT_JSON, FinishedEdit, is_run, kept_options, run_overrides
from evaluation.case import Metric
from evaluation.comparison import clips_of
from evaluation.report import REPORT_HTML, write_report
from evaluation.scores import EDITED, failed, failure, merge_scores, score_edit, score_files, update_scores
from evaluation.tables import means_table, print_failures

console = make_console()
EVALUATED = ("dataset", "metric", "clip", "device")  # the keys of a configuration that scoring reads
# scoring reads none of these, and the method's configuration may not be here
EDITING = ("method", "ablation", "loss", "attention", "optimizer", "steps", "guidance_scale", "image_guidance_scale",
           "key_frame_stride", "control_net", "settings")  # fmt: skip


def configuration(path: Path, overrides: list[str], trust: bool = False) -> DictConfig:
    """What to score a folder by: the composed configuration, of a run under the overrides that made it.

    Raises InputError for an override of something that scoring does not read, and for a run that asks for code which
    is not this project's own, unless it is trusted.
    """
    if not is_run(path):
        return composed(overrides)
    for override in overrides:
        group = group_of(override)
        require(group in EVALUATED, f"{group} can't be changed for a run that is there: only {', '.join(EVALUATED)}")
    kept = [f"{key}={quoted(value)}" for key, value in kept_options(path).items()]
    anew = any(override.startswith("dataset=") for override in overrides)  # another dataset has other options
    made_by = in_full([override for override in run_overrides(path) if group_of(override) not in EDITING])
    try:
        cfg = composed([*made_by, *([] if anew else kept), *overrides])
    except (HydraException, OmegaConfBaseException):
        check_made_by(path, [*made_by, *kept])
        raise
    unknown = sorted({*targets(OmegaConf.to_container(cfg), EVALUATED)} - known_targets())
    require(
        trust or not unknown,
        f"{path} asks for {', '.join(unknown)}, which no file of conf/ names: where you know whose run it is, "
        f"say --trust",
    )
    return cfg


def check_made_by(path: Path, overrides: list[str]) -> None:
    """Raises InputError where the run's own overrides make no configuration; else it was what a person added."""
    try:
        composed(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{path / ENVIRONMENT_JSON}: its overrides can't be composed ({error}): restore it") from error


def group_of(override: str) -> str:
    """The top-level key that an override changes."""
    return re.split(r"[.=@]", override.lstrip("+~"))[0]


def targets(node: Any, keys: tuple[str, ...] | None = None) -> Iterator[str]:
    """Every `_target_` below a node; at the top, below these keys alone."""
    if isinstance(node, dict):
        if "_target_" in node and keys is None:
            yield str(node["_target_"])
        for key, value in node.items():
            if keys is None or key in keys:
                yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def score(path: Path, overrides: list[str], trust: bool = False) -> pd.DataFrame:
    """The scores of a run directory, or of a folder of videos named by pair; written into it as scores.csv.

    In such a folder, a video keeps its scores by other metrics; score one that takes its place by all of them.
    """
    require(path.is_dir(), f"{path} is no directory: give run directories, or folders of <pair>.mp4")
    cfg = configuration(path, overrides, trust)
    pairs = instantiate(cfg.dataset, _convert_="all")
    require(bool(pairs), f"{path}: this part of the dataset has no pairs: give another dataset.shard")
    metrics: list[Metric] = list(instantiate(cfg.metric, _convert_="all").values())
    require(
        is_run(path) or any(find_video(path / pair.id) for pair in pairs),
        f"{path} is neither a run directory (no {CONFIG_YAML}) nor a folder of this dataset's edits: it holds no file "
        f"such as {pairs[0].id}.mp4. Name the dataset by dataset=...",
    )
    turns = track(pairs, f"scoring {path.name}", console=console, transient=True)
    scores = pd.concat([score_pair(path, pair, metrics) for pair in turns], ignore_index=True)
    if is_run(path):
        update_scores(path, scores)
        write_report([path], path / REPORT_HTML)
    else:
        merge_scores(path, scores, gone=[pair.id for pair in pairs if not find_video(path / pair.id)])
    return scores


def score_pair(path: Path, pair: TextVideoPair, metrics: Sequence[Metric]) -> pd.DataFrame:
    """The scores of one pair of a run or of a folder of videos; where it can't be scored, the reason."""
    try:
        if is_run(path):
            return score_edit(EditDirectory(path / "edits" / pair.id, pair), metrics)
        video = find_video(path / pair.id) or path / f"{pair.id}.mp4"
        return score_files(pair, {EDITED: video}, metrics)
    except InputError as error:  # a damaged record, or damaged scores of this pair
        return failure(pair.id, str(error))


def lost(run: Path, scores: pd.DataFrame) -> list[str]:
    """Why edits of a run have no score. One that failed, or is under way, has no video to be missed."""
    unscored = failed(scores)
    unscored = unscored[(unscored.video == EDITED) & (unscored.metric == "")]
    edits = [FinishedEdit(run / "edits" / pair) for pair in unscored.pair]
    return [reason for reason, edit in zip(unscored.reason, edits) if edit.damage or edit.finished]


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="PATH|override")
    parser.add_argument("--trust", action="store_true", help="instantiate whatever a run's configuration names")
    options = parser.parse_args()
    given = options.arguments
    paths = [Path(argument) for argument in given if Path(argument).exists() or not re.match(r"~|[^/]*=", argument)]
    overrides = [argument for argument in given if Path(argument) not in paths]
    require(bool(paths), f"no path among {', '.join(given)}: give run directories, or folders of <pair>.mp4")
    gone = []
    for path in paths:
        scores = score(path, overrides, options.trust)
        console.print(means_table(str(path), scores, clips_of([path])))
        print_failures(console, scores)
        gone += lost(path, scores)
    require(not gone, f"{len(gone)} edits can't be scored: {'; '.join(gone)}")


if __name__ == "__main__":
    main()
