"""Hydra's callback: what a multirun has made, and one page about all of it."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from assd.config import without
from assd.runs.reader import is_run
from assd.runs.sweep import add_run, begin_sweep, sweep_runs
from evaluation.report import REPORT_HTML, write_report


class SweepReport(Callback):
    """Keeps sweep.json and the sweep's report beside the runs, wherever and in whatever order jobs end.

    A job adds itself when it begins; the page is written when one ends, since `on_multirun_end` never comes where one
    failed, and at the end.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A sweep begins."""
        begin_sweep(Path(config.hydra.sweep.dir), config.hydra.overrides.task)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A job begins, here or on another machine."""
        if config.hydra.mode == RunMode.MULTIRUN:
            run = Path(config.hydra.runtime.output_dir)
            incidental = config.hydra.job.config.override_dirname.exclude_keys
            add_run(Path(config.hydra.sweep.dir), run.name, without(config.hydra.overrides.task, incidental))

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """A job ended."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self.report(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs ended."""
        if page := self.report(Path(config.hydra.sweep.dir)):
            print(f"The sweep's report: {page}")

    def report(self, folder: Path) -> Path | None:
        """The page about the sweep's runs so far; None where there is none."""
        runs = [run for run in sweep_runs(folder) if is_run(run)]
        return write_report(runs, folder / REPORT_HTML) if runs else None
