"""Edits every pair of a dataset: `python -m assd.run`, or `assd` where it is installed."""

import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C while torch loads ends the program, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import hydra
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from assd.config import CONFIG_PATH, checked, register, without
from assd.console import console as make_console
from assd.data.pairs import TextVideoPair
from assd.device import resolve_device
from assd.errors import EXPECTED, InputError, one_sentence, require, sentence
from assd.runs.directory import EditDirectory, RunDirectory
from assd.runs.editor import Editor, summary_of
from assd.runs.interrupt import Stop, Stopped, hand_on, stopping_on_signals
from assd.runs.lock import briefly_alone, one_writer
from evaluation.case import Metric
from evaluation.report import REPORT_HTML, write_report
from evaluation.report.sweep import SweepReport, print_sweep, shard_of
from evaluation.scores import EDITED, failure, read_scores, score_edit, scored_by, update_scores
from evaluation.tables import means_table, print_failures

console = make_console()
log = logging.getLogger(__name__)
register()


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="config")
def app(cfg: DictConfig) -> float | None:
    """What Hydra calls, and what a launcher sends to its jobs: it must hold nothing that cannot be sent."""
    return job(cfg)


def job(cfg: DictConfig) -> float | None:
    """One run, here or as a launcher's job: it says what went wrong, and stops with everything saved when it must.

    Returns the mean of the metric that `objective` names, for a sweeper that looks for its best value.
    """
    logging.getLogger().handlers = [RichHandler(console=console, show_path=False, show_time=False)]
    hydra_cfg = HydraConfig.get()
    with job_errors(hydra_cfg, shard_of(cfg)), stopping_on_signals() as stop:
        return run(cfg, hydra_cfg, stop)


def run(cfg: DictConfig, hydra_cfg: DictConfig, stop: Stop) -> float | None:
    """Everything the configuration names is built, then every pair is edited and scored."""
    overrides = list(hydra_cfg.overrides.task)
    cfg = checked(cfg, overrides)
    cfg.device = own_device(cfg.device, hydra_cfg)
    device = resolve_device(cfg.device)
    pairs = instantiate(cfg.dataset, _convert_="all")
    shard = cfg.dataset.get("shard")
    if not pairs:  # of a job array larger than the dataset
        console.print(f"dataset.shard={shard} has no pairs: there is nothing to do")
        return None
    method = instantiate(cfg.method, _convert_="all")
    by_name = instantiate(cfg.metric, _convert_="all")
    objective = None if cfg.objective is None else chosen(cfg.objective, by_name)
    metrics = list(by_name.values())
    tracking = instantiate(cfg.tracking, _convert_="all")
    incidental = hydra_cfg.job.config.override_dirname.exclude_keys
    directory = RunDirectory(Path(hydra_cfg.runtime.output_dir), incidental)
    part = f"-{shard.replace('/', '-of-')}" if shard else ""
    with one_writer(directory.path, part):
        directory.open(cfg, device, without(overrides, incidental))
        console.print(f"[bold]{escape(directory.path.name)}[/]: {len(pairs)} pairs on {device}")
        numbers = {pair.id: number for number, pair in enumerate(pairs)}
        with tracking.follow(directory.path, OmegaConf.to_container(cfg, resolve=True), method.num_steps, part) as copy:

            def score(folder: EditDirectory) -> None:
                if not scored_by(folder.path, metrics):
                    copy.scores(numbers[folder.pair.id], score_edit(folder, metrics))

            editor = Editor(
                method, directory, cfg.seed, cfg.save_frames, cfg.targets_together, stop, console, device,
                on_steps=lambda pair, curves: copy.steps(numbers[pair], curves), on_finished=score,
            )  # fmt: skip
            editor.edit_all(pairs)
            scores = read_run(directory, pairs, editor.problems)
            update_scores(directory.path, scores[~scores.pair.isin(editor.busy)])
            copy.summary(pairs, directory.path / "edits", scores, editor.failed)
        with briefly_alone(directory.path):
            overview = directory.write_overview()
            page = write_report([directory.path], directory.path / REPORT_HTML)
    conclude(directory, pairs, scores, overview, page, editor)
    if said := summary_of(editor, len(pairs)):
        raise InputError(said)
    if objective is None:
        return None
    return float(scores[(scores.video == EDITED) & (scores.metric == objective.name)].value.mean())


def chosen(name: str, metrics: dict[str, Metric]) -> Metric:
    """The metric that a sweeper asks for. Raises InputError where it is not among the run's metrics."""
    require(name in metrics, f"objective must be one of this run's metrics, {', '.join(metrics)}; got {name!r}")
    return metrics[name]


def own_device(device: str, hydra_cfg: DictConfig) -> str:
    """Of jobs that joblib runs side by side, each `auto` is a GPU of its own, in turn."""
    side_by_side = "joblib" in hydra_cfg.launcher.get("_target_", "") and torch.cuda.device_count() > 1
    return f"cuda:{hydra_cfg.job.num % torch.cuda.device_count()}" if device == "auto" and side_by_side else device


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
    editor: Editor,
) -> None:
    """The tables at the end, and where to look."""
    name = Text(directory.path.name)
    table = Table("pair", "source", "target", "status", "seconds", title=name, title_justify="left")
    for pair in pairs:
        has_result = pair.id not in editor.problems or pair.id in editor.unscored
        record = directory.edit(pair).record if has_result else {}
        status = "busy" if pair.id in editor.busy else record.get("status", "failed")
        seconds = f"{record['seconds']:.1f}" if "seconds" in record else ""
        table.add_row(*map(Text, (pair.id, *pair.prompts, status, seconds)))
    console.print(table)
    if overview:
        console.print(means_table("scores", scores, {pair.id: pair.clip for pair in pairs}))
        print_failures(console, scores)
        console.print(f"Look at [bold]{escape(str(page))}[/] in a browser, or at [bold]{escape(str(overview))}[/]")


@contextlib.contextmanager
def job_errors(hydra_cfg: DictConfig, shard: str | None) -> Iterator[None]:
    """How a run ends that cannot go on, in words and exit code, also as a cluster's job.

    Of a job, Hydra would hide an error from Slurm; here it ends the process with code 1, and is kept for the sweep. A
    job that is preempted is handed to its launcher, which requeues it.
    """
    is_job = "submitit" in hydra_cfg.launcher.get("_target_", "") and hydra_cfg.mode == RunMode.MULTIRUN
    try:
        yield
    except Stopped as stopped:
        goes_on = "the job goes on when it is queued again" if is_job else f"this goes on:\n  {command()}"
        print(f"stopped by {stopped}; everything is saved, and {goes_on}", file=sys.stderr)
        hand_on(stopped)
        sys.exit(stopped.exit_code)
    except EXPECTED as error:
        if not is_job:
            raise
        with besides():
            SweepReport().end(hydra_cfg, shard, error)
        sys.exit(f"error: {sentence(error)}")


@contextlib.contextmanager
def besides() -> Iterator[None]:
    """Within it an error is said and goes no further: another one ends the program, and is not to be replaced."""
    try:
        yield
    except Exception as error:
        print(f"besides, the sweep's report was not made: {type(error).__name__}: {error}", file=sys.stderr)


def command() -> str:
    """The command line that started this program."""
    return shlex.join(["python", "-m", "assd.run", *sys.argv[1:]])


def main() -> None:
    """The command line. Hydra is asked for full errors inside, so that all of them arrive at `one_sentence`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with one_sentence(), full_errors(), sweep_printed():
        try:
            app()
        except KeyboardInterrupt:
            print(f"stopped; what is saved is kept, and this goes on:\n  {command()}", file=sys.stderr)
            sys.exit(130)


@contextlib.contextmanager
def sweep_printed() -> Iterator[None]:
    """After it, however it ends, the sweep that it made is printed."""
    try:
        yield
    except BaseException:
        with besides():
            print_sweep(console)
        raise
    print_sweep(console)


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
    from assd.run import main as of_the_module  # a launcher sends `app` to its jobs by name, which __main__ has none of

    of_the_module()
