"""Edits every pair of a dataset: `python -m assd.run`, or `assd` where it is installed."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from assd.config import CONFIG_PATH, checked, register, without
from assd.data.pairs import Footage, TextVideoPair
from assd.device import resolve_device
from assd.errors import DivergedError, InputError, NotHereError, one_sentence, require
from assd.methods.method import Checkpoint, Method, Request
from assd.runs.directory import EditDirectory, RunDirectory
from assd.runs.lock import one_writer
from assd.runs.wandb import Copy
from evaluation.case import Metric
from evaluation.report import REPORT_HTML, write_report
from evaluation.scores import failure, read_scores, score_edit, scored_by, update_scores
from evaluation.tables import means_table, print_failures

console = Console()
log = logging.getLogger(__name__)
register()


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="config")
def app(cfg: DictConfig) -> None:
    """One run: everything the configuration names is built, then every pair is edited and scored."""
    logging.getLogger().handlers = [RichHandler(console=console, show_path=False, show_time=False)]
    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    cfg = checked(cfg, overrides)
    device = resolve_device(cfg.device)
    pairs = instantiate(cfg.dataset, _convert_="all")
    method = instantiate(cfg.method, _convert_="all")
    metrics = list(instantiate(cfg.metric, _convert_="all").values())
    tracking = instantiate(cfg.tracking, _convert_="all")
    incidental = hydra_cfg.job.config.override_dirname.exclude_keys
    directory = RunDirectory(Path(hydra_cfg.runtime.output_dir), incidental)
    with one_writer(directory.path):
        directory.open(cfg, device, without(overrides, incidental))
        console.print(f"[bold]{escape(directory.path.name)}[/]: {len(pairs)} pairs on {device}")
        with tracking.follow(directory.path, OmegaConf.to_container(cfg, resolve=True), method.num_steps) as copy:
            editor = Editor(method, metrics, directory, copy, cfg.seed, cfg.save_frames, cfg.targets_together)
            editor.edit_all(pairs)
            scores = read_run(directory, pairs, editor.problems)
            update_scores(directory.path, scores)
            copy.summary(pairs, directory.path / "edits", scores, editor.failed)
        overview = directory.write_overview(pairs)
        page = write_report([directory.path], directory.path / REPORT_HTML)
    conclude(directory, pairs, scores, overview, page, editor.problems)
    require(
        not editor.failed,
        f"{len(editor.failed)} of {len(pairs)} pairs could not be edited ({', '.join(editor.failed)}); the others are "
        f"kept. The same command tries the failed ones again",
    )


@dataclass(frozen=True)
class Editor:
    """Takes pairs from their frames to their files, their scores, and their copy in W&B.

    problems  by id: why a pair has no result in this run
    failed    the ids among them; a pair whose video is not on this machine is left out and is no failure
    """

    method: Method
    metrics: list[Metric]
    directory: RunDirectory
    copy: Copy
    seed: int
    save_frames: bool
    targets_together: int
    problems: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self):
        require(self.targets_together >= 1, f"targets_together must be >= 1; got {self.targets_together}")

    def edit_all(self, pairs: list[TextVideoPair]) -> None:
        """Edits what isn't finished, scores what isn't scored; a pair that fails is noted and the next one begins."""
        numbers = {pair.id: number for number, pair in enumerate(pairs)}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
        ) as bars:
            for folders in self.groups(pairs):
                self.attempt(folders, numbers, bars)
                for folder in folders:
                    if folder.pair.id not in self.problems and not scored_by(folder.path, self.metrics):
                        self.copy.scores(numbers[folder.pair.id], score_edit(folder, self.metrics))

    def groups(self, pairs: list[TextVideoPair]) -> list[list[EditDirectory]]:
        """Pairs that one call can edit: same clip and source prompt, and as far done; in order, when each is alone."""
        if self.targets_together == 1:
            return [[self.directory.edit(pair)] for pair in pairs]
        groups: dict[tuple, list[EditDirectory]] = {}
        for pair in pairs:
            folder = self.directory.edit(pair)
            key = (pair.clip, pair.prompts.source, "finished" if folder.finished else folder.step)
            groups.setdefault(key, []).append(folder)
        size = self.targets_together
        return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]

    def attempt(self, folders: list[EditDirectory], numbers: dict[str, int], bars: Progress) -> None:
        """Edits a group, each pair alone where one of them spoils it; notes why a pair failed."""
        try:
            self.edit(folders, numbers, bars)
            return
        except (InputError, DivergedError) as error:
            failure = error.with_traceback(None)
        except torch.OutOfMemoryError as error:
            failure = InputError(f"{error}. Edit fewer frames, or at a smaller size; nothing of this pair is lost")
        torch.cuda.empty_cache()  # here, where no traceback holds the tensors of the attempt any more
        if len(folders) > 1:
            for folder in folders:
                self.attempt([folder], numbers, bars)
            return
        (folder,) = folders
        folder.fail(failure, self.seed)
        self.problems[folder.pair.id] = str(failure)
        if not isinstance(failure, NotHereError):
            self.failed.append(folder.pair.id)
        bars.console.print(Text(f"{folder.pair.id}: {failure}", style="red"))

    def edit(self, folders: list[EditDirectory], numbers: dict[str, int], bars: Progress) -> None:
        """Pairs of one clip from its frames, or their last checkpoints, to their files; finished ones are checked."""
        started = time.perf_counter()
        first = folders[0].pair
        footage = first.read(self.method.canvas)
        for folder in folders:
            folder.check_belongs(folder.identity(footage, self.seed))
        if folders[0].finished:
            return
        requests = [self.request(folder, footage, numbers[folder.pair.id]) for folder in folders]
        name = ", ".join(folder.pair.id for folder in folders)
        bar = bars.add_task(escape(name), total=self.method.num_steps, completed=requests[0].begin)
        edits = self.method(
            footage,
            first.prompts.source,
            requests,
            first.clip,
            advance=lambda step: bars.update(bar, completed=step),
        )
        seconds = (time.perf_counter() - started) / len(folders)
        for folder, edit in zip(folders, edits):
            folder.finish(edit, footage, folder.identity(footage, self.seed), seconds, self.save_frames)

    def request(self, folder: EditDirectory, footage: Footage, number: int) -> Request:
        """What the method is asked for one pair, from where it stopped."""
        identity = folder.identity(footage, self.seed)

        def checkpoint(state: Checkpoint, curves: list[dict[str, Any]]) -> None:
            folder.checkpoint(state, curves, identity)
            self.copy.steps(number, curves)

        return Request(folder.pair.prompts.target, folder.pair.options, folder.resume(), checkpoint)


def read_run(directory: RunDirectory, pairs: list[TextVideoPair], problems: dict[str, str]) -> pd.DataFrame:
    """The scores of all pairs; of one without result in this run, the reason."""
    tables = [
        failure(pair.id, problems[pair.id]) if pair.id in problems else read_scores(directory.edit(pair).path)
        for pair in pairs
    ]
    return pd.concat(tables, ignore_index=True)


def conclude(
    directory: RunDirectory,
    pairs: Sequence[TextVideoPair],
    scores: pd.DataFrame,
    overview: Path | None,
    page: Path,
    problems: dict[str, str],
) -> None:
    """The tables at the end, and where to look."""
    name = Text(directory.path.name)
    table = Table("pair", "source", "target", "status", "seconds", title=name, title_justify="left")
    for pair in pairs:
        record = directory.edit(pair).record
        status = "failed" if pair.id in problems else record["status"]
        seconds = f"{record['seconds']:.1f}" if "seconds" in record else ""
        table.add_row(*map(Text, (pair.id, *pair.prompts, status, seconds)))
    console.print(table)
    if overview:
        console.print(means_table("scores", scores))
        print_failures(console, scores)
        console.print(f"Look at [bold]{escape(str(page))}[/] in a browser, or at [bold]{escape(str(overview))}[/]")


def main() -> None:
    """The command line. Hydra is asked for full errors inside, so that all of them arrive at `one_sentence`."""
    with one_sentence(), full_errors():
        try:
            app()
        except KeyboardInterrupt:
            sys.exit("stopped; the same command goes on from the last checkpoint")


@contextlib.contextmanager
def full_errors() -> Iterator[None]:
    """Within it, Hydra raises instead of printing and leaving."""
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


if __name__ == "__main__":
    main()
