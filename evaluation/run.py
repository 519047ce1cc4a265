"""Scores videos that lie there, without the editor: `python -m evaluation.run PATH... [override...]`.

    python -m evaluation.run outputs/default outputs/ablation=no_waf     runs, scored again
    python -m evaluation.run outputs/default metric=[clip_text,psnr]     with these metrics
    python -m evaluation.run theirs dataset=shapes                       another program's videos, theirs/<pair>.mp4
                                                                         or whatever else is a video

A run is scored as its own configuration says, any other folder as `conf/config.yaml` does; overrides in Hydra's words
change both. Writes scores.csv into each (and a run's report again), and prints means over pairs.
"""

import argparse
import re
from pathlib import Path

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from assd.config import composed
from assd.errors import one_sentence, require
from assd.rundir import CONFIG_YAML, EditDirectory
from assd.video import find_video
from evaluation.case import Metric
from evaluation.report import REPORT_HTML, write_report
from evaluation.scores import EDITED, score_edit, score_files, update_scores
from evaluation.tables import means_table, print_failures

console = Console()
EVALUATED = ("dataset", "metric", "clip", "device")  # the keys of a configuration that scoring reads


def configuration(path: Path, overrides: list[str]) -> DictConfig:
    """What to score a folder by: the composed configuration; of a run, its own under the overrides.

    `group=choice` takes a whole group anew, `group.key=value` changes one value of it, or else of the run's own, and
    `~group.key` leaves one out.
    """
    if not (path / CONFIG_YAML).is_file():
        return composed(overrides)
    cfg = OmegaConf.load(path / CONFIG_YAML)
    parsed = OverridesParser.create().parse_overrides(overrides)
    anew = {override.key_or_group for override in parsed if "." not in override.key_or_group}
    fresh = composed([text for text, override in zip(overrides, parsed) if group_of(override) in anew])
    fresh = OmegaConf.create(OmegaConf.to_container(fresh, resolve=True))
    for override in parsed:
        group, key = group_of(override), override.key_or_group
        require(group in EVALUATED, f"{group} can't be changed for a run that is there: only {', '.join(EVALUATED)}")
        if group in anew:
            OmegaConf.update(cfg, group, fresh[group], merge=False)
        elif override.is_delete():
            cfg[group].pop(key.partition(".")[2])
        else:
            OmegaConf.update(cfg, key, override.value(), merge=False)
    cfg.clip.device = cfg.device
    for metric in cfg.metric.values():
        if "device" in metric:
            metric.device = cfg.device
        if "clip" in metric:
            metric.clip = cfg.clip
    return DictConfig(cfg)


def group_of(override: Override) -> str:
    """`metric` of `metric=psnr` and of `~metric.psnr`."""
    return override.key_or_group.partition(".")[0]


def score(path: Path, overrides: list[str]) -> pd.DataFrame:
    """The scores of a run directory, or of a folder of videos named by pair; written into it as scores.csv."""
    require(path.is_dir(), f"{path} is no directory: give run directories, or folders of <pair>.mp4")
    cfg = configuration(path, overrides)
    pairs = instantiate(cfg.dataset, _convert_="all")
    metrics: list[Metric] = list(instantiate(cfg.metric, _convert_="all").values())
    is_run = (path / CONFIG_YAML).is_file()
    require(
        is_run or any(find_video(path / pair.id) for pair in pairs),
        f"{path} is neither a run directory (no {CONFIG_YAML}) nor a folder of this dataset's edits: it holds no file "
        f"such as {pairs[0].id}.mp4. Name the dataset by dataset=...",
    )
    scores = []
    for pair in track(pairs, f"scoring {path.name}", console=console, transient=True):
        if is_run:
            scores.append(score_edit(EditDirectory(path / "edits" / pair.id, pair), metrics))
        else:
            video = find_video(path / pair.id) or path / f"{pair.id}.mp4"
            scores.append(score_files(pair, {EDITED: video}, metrics))
    joined = pd.concat(scores, ignore_index=True)
    update_scores(path, joined)
    if is_run:
        write_report([path], path / REPORT_HTML)
    return joined


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="PATH|override")
    given = parser.parse_args().arguments
    paths = [Path(argument) for argument in given if Path(argument).exists() or not re.match(r"~|[^/]*=", argument)]
    overrides = [argument for argument in given if Path(argument) not in paths]
    require(bool(paths), f"no path among {', '.join(given)}: give run directories, or folders of <pair>.mp4")
    for path in paths:
        scores = score(path, overrides)
        console.print(means_table(str(path), scores))
        print_failures(console, scores)


if __name__ == "__main__":
    main()
