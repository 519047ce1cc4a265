"""Hydra's callback: what a multirun has made, and one page about all of it."""

from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markdown import Markdown

from assd.config import without
from assd.errors import sentence
from assd.runs.lock import briefly_alone
from assd.runs.reader import is_run
from assd.runs.sweep import add_run, begin_sweep, fail_run, sweep_runs
from evaluation.comparison import collect, failures, summarize
from evaluation.report import REPORT_HTML, write_report
from evaluation.scores import SCORES_CSV
from evaluation.tables import render


class SweepReport(Callback):
    """Keeps sweep.json and the sweep's report beside the runs, wherever and in whatever order jobs end.

    A job adds itself when it begins; the page is written when one ends, since `on_multirun_end` never comes where one
    failed, and at the end.
    """

    begun: ClassVar[list[Path]] = []  # the folders of sweeps that this process started

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A sweep begins."""
        folder = Path(config.hydra.sweep.dir)
        begin_sweep(folder, config.hydra.overrides.task)
        self.begun.append(folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A job begins, here or on another machine."""
        if config.hydra.mode == RunMode.MULTIRUN:
            run = Path(config.hydra.runtime.output_dir)
            incidental = config.hydra.job.config.override_dirname.exclude_keys
            overrides = without(config.hydra.overrides.task, incidental)
            add_run(Path(config.hydra.sweep.dir), run.name, overrides, shard_of(config))

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """A job ended, or failed: then with the error for its return value."""
        if config.hydra.mode == RunMode.MULTIRUN:
            error = None
            if job_return is not None and job_return.status == JobStatus.FAILED:
                error = job_return._return_value
            self.end(config.hydra, shard_of(config), error)

    def end(self, hydra_cfg: DictConfig, shard: str | None, error: Exception | None) -> None:
        """Keeps why a job of a multirun failed, where it did, and writes the page.

        A job that ends its process calls this itself: Hydra does not come to `on_job_end` then.
        shard  the job's part of its run; None where it has all of it
        """
        folder = Path(hydra_cfg.sweep.dir)
        if error is not None:
            fail_run(folder, Path(hydra_cfg.runtime.output_dir).name, sentence(error), shard)
        self.report(folder)

    def report(self, folder: Path) -> Path | None:
        """The page about the sweep's runs so far; None where there is none."""
        runs = [run for run in sweep_runs(folder) if is_run(run)]
        with briefly_alone(folder):
            return write_report(runs, folder / REPORT_HTML) if runs else None


def shard_of(config: DictConfig) -> str | None:
    """A job's part of its run; None where it has all of it."""
    shard = OmegaConf.select(config, "dataset.shard")
    return None if shard is None else str(shard)


def print_sweep(console: Console) -> None:
    """At the end of a sweep, also of one that was not finished: its table, and where its report is."""
    folders = [*SweepReport.begun]
    SweepReport.begun.clear()
    for folder in folders:
        scored = [run for run in sweep_runs(folder) if (run / SCORES_CSV).is_file()]
        if scored:
            scores = collect(scored)
            console.print(Markdown(render(summarize(scores), "md", notes=failures(scores))))
        if page := SweepReport().report(folder):
            console.print(f"The sweep's report: {page}", highlight=False, soft_wrap=True)
