"""Scores videos that lie there, without the editor: `python -m evaluation.run PATH... [override...]`.

    python -m evaluation.run outputs/default outputs/ablation=no_waf     runs, scored again
    python -m evaluation.run outputs/default metric=[clip_text,psnr]     with these metrics
    python -m evaluation.run theirs dataset=shapes                       another program's videos, theirs/<pair>.mp4

A run is scored as its own configuration says, any other folder as `conf/config.yaml` does; overrides in Hydra's words
change both. Writes scores.csv into each (and a run's report again), and prints means over pairs.
"""

import argparse
from pathlib import Path

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from assd.config import composed
from assd.errors import one_sentence, require
from assd.rundir import CONFIG_YAML, EditDirectory
from evaluation.case import Metric
from evaluation.report import REPORT_HTML, write_report
from evaluation.scores import EDITED, score_edit, score_files, write_scores
from evaluation.tables import means_table

console = Console()
EVALUATED = ("dataset", "metric", "clip", "device")  # the keys of a configuration that scoring reads


def configuration(path: Path, overrides: list[str]) -> DictConfig:
    """What to score a folder by: the composed configuration; of a run, its own under the overrides.

    `group=choice` takes a whole group anew, `group.key=value` changes one value of the run's own.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    groups = [text for text, override in zip(overrides, parsed) if "." not in override.key_or_group]
    if not (path / CONFIG_YAML).is_file():
        return composed(overrides)
    fresh = OmegaConf.create(OmegaConf.to_container(composed(groups), resolve=True))
    cfg = OmegaConf.load(path / CONFIG_YAML)
    for override in parsed:
        key = override.key_or_group
        group = key.partition(".")[0]
        require(group in EVALUATED, f"{group} can't be changed for a run that is there: only {', '.join(EVALUATED)}")
        OmegaConf.update(cfg, key, override.value() if "." in key else fresh[group], merge=False)
    for group in EVALUATED:  # a run made before these were settings
        if group not in cfg:
            OmegaConf.update(cfg, group, fresh[group])
    cfg.clip.device = cfg.device
    for metric in cfg.metric.values():
        if "clip" in metric:
            metric.clip = cfg.clip
    return DictConfig(cfg)


def score(path: Path, overrides: list[str]) -> pd.DataFrame:
    """The scores of a run directory, or of a folder of videos named by pair; written into it as scores.csv."""
    require(path.is_dir(), f"{path} is no directory: give run directories, or folders of <pair>.mp4")
    cfg = configuration(path, overrides)
    pairs = instantiate(cfg.dataset, _convert_="all")
    metrics: list[Metric] = list(instantiate(cfg.metric, _convert_="all").values())
    is_run = (path / CONFIG_YAML).is_file()
    require(
        is_run or any((path / f"{pair.id}.mp4").is_file() for pair in pairs),
        f"{path} is neither a run directory (no {CONFIG_YAML}) nor a folder of this dataset's edits: it holds no file "
        f"such as {pairs[0].id}.mp4. Name the dataset by dataset=...",
    )
    scores = []
    for pair in track(pairs, f"scoring {path.name}", console=console, transient=True):
        if is_run:
            scores.append(score_edit(EditDirectory(path / "edits" / pair.id, pair), metrics))
        else:
            scores.append(score_files(pair, {EDITED: path / f"{pair.id}.mp4"}, metrics))
    joined = pd.concat(scores, ignore_index=True)
    write_scores(path, joined)
    if is_run:
        write_report([path], path / REPORT_HTML)
    return joined


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="PATH|override")
    given = parser.parse_args().arguments
    paths = [Path(argument) for argument in given if "=" not in argument or Path(argument).exists()]
    overrides = [argument for argument in given if Path(argument) not in paths]
    require(bool(paths), f"no path among {', '.join(given)}: give run directories, or folders of <pair>.mp4")
    for path in paths:
        console.print(means_table(str(path), score(path, overrides)))


if __name__ == "__main__":
    main()
