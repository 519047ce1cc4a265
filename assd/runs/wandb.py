"""Weights & Biases as a copy of the run directory: offline by default, and never a reason for a run to stop."""

# pandas and wandb annotate what they do not have
# pyright: reportAttributeAccessIssue=false

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from assd.data.pairs import TextVideoPair
from assd.errors import require
from assd.files import write_text

log = logging.getLogger(__name__)
MODES = ("offline", "online", "disabled")
FLUSH_SECONDS = 1  # a killed process loses no more than this
FINISH_SECONDS = 20  # a server that went away is not waited for any longer


class WandB:
    """Settings of the tracking; `follow` begins it for one run.

    mode          `offline` (files in the run directory, `wandb sync` sends them later), `online`, or `disabled`
    project       in W&B
    entity        team or user in W&B; None for the account's own
    group         the sweep a run belongs to
    every         steps between two points of a pair's curves
    init_timeout  seconds to wait for the server before going on offline
    """

    def __init__(
        self,
        mode: str = "offline",
        project: str = "assd",
        entity: str | None = None,
        group: str | None = None,
        every: int = 5,
        init_timeout: float = 15.0,
    ):
        require(mode in MODES, f"tracking.mode must be one of {', '.join(MODES)}; got {mode!r}")
        require(every >= 1, f"tracking.every must be >= 1; got {every}")
        self.mode, self.project, self.entity, self.group = mode, project, entity, group
        self.every, self.init_timeout = every, init_timeout

    @contextlib.contextmanager
    def follow(self, directory: Path, config: dict[str, Any], num_steps: int, part: str = "") -> Iterator["Copy"]:
        """A W&B run for a run directory, or a job's part of it, whose id is kept: starting again resumes it.

        Marked failed on an error.
        """
        copy = Copy(self._start(directory, config, part), num_steps, self.every)
        try:
            yield copy
        except BaseException:
            copy.finish(1)
            raise
        copy.finish(0)

    def _start(self, directory: Path, config: dict[str, Any], part: str) -> Any:
        """`wandb.init`, offline where online fails; None where W&B is disabled or can't be used at all."""
        if self.mode == "disabled":
            return None
        try:
            os.environ["WANDB_DATA_DIR"] = str(directory / "wandb_data")  # media wait there to be synced
            (directory / "wandb_data").mkdir(parents=True, exist_ok=True)
            import wandb  # noqa: PLC0415  (slow to import, and reads its environment then)

            run_id = kept_id(directory / f"wandb_id{part}.txt")
        except (OSError, ImportError) as error:
            log.warning("W&B can't be used (%s): the run goes on without it", one_line(error))
            return None
        options: dict[str, Any] = dict(
            project=self.project,
            entity=self.entity,
            group=self.group,
            job_type="edit",
            id=run_id,
            resume="allow",
            name=f"{directory.name}{part}",
            dir=str(directory),
            config=config,
        )
        settings: dict[str, Any] = dict(
            x_transaction_log_flush_interval=FLUSH_SECONDS, console="off", silent=True, init_timeout=self.init_timeout
        )
        for mode in dict.fromkeys((self.mode, "offline")):
            try:
                return wandb.init(mode=mode, settings=wandb.Settings(**settings), **options)
            except Exception as error:
                after = "its data stay on this machine" if mode == "online" else "the run goes on without it"
                log.warning("W&B can't be used %s (%s): %s", mode, one_line(error), after)
                wandb.teardown()
        return None


def kept_id(file: Path) -> str:
    """The W&B id of a run directory, made at its first start."""
    if not file.exists():
        write_text(file, secrets.token_hex(4) + "\n")
    return file.read_text(encoding="utf-8").strip()


class Copy:
    """What W&B is told about one run. A call that fails is noted once; the run goes on without W&B.

    A point's W&B step is the pair's number times (num_steps + 1) plus the optimisation's step, so that a resumed run
    goes on where it stopped; or the next one, where pairs take turns and that one has passed.
    """

    def __init__(self, run: Any, num_steps: int, every: int):
        self._run, self.num_steps, self.every, self._last = run, num_steps, every, -1
        self._tell(lambda run: run.define_metric("optimisation/*", step_metric="optimisation/step"))

    def steps(self, number: int, curves: Sequence[dict[str, Any]]) -> None:
        """Curves of pair `number`: gradient norm, mask coverage and whatever else steps.jsonl holds."""
        for curve in curves:
            if curve["step"] % self.every == 0 or curve["step"] == self.num_steps - 1:
                point = {f"optimisation/{key}": value for key, value in curve.items()} | {"optimisation/pair": number}
                self._log(number, curve["step"], point)

    def scores(self, number: int, scores: pd.DataFrame) -> None:
        """The scores of pair `number`, as `edited/<metric>`, `source/<metric>` and so on."""
        rows = scores[scores.value.notna()]
        point = {f"{row.video}/{row.metric}": row.value for row in rows.itertuples()} | {"pair": number}
        self._log(number, self.num_steps, point)

    def _log(self, number: int, step: int, point: dict[str, Any]) -> None:
        self._last = max(self._last + 1, number * (self.num_steps + 1) + step)
        self._tell(lambda run: run.log(point, step=self._last))

    def summary(
        self, pairs: Sequence[TextVideoPair], edits: Path, scores: pd.DataFrame, failed: Sequence[str] = ()
    ) -> None:
        """Means over pairs, a table of all pairs with their videos and scores, and the ids of pairs that failed."""

        def write(run: Any) -> None:
            import wandb  # noqa: PLC0415

            rows = scores[scores.value.notna()]
            means = rows.groupby(["video", "metric"], sort=False).value.mean()
            edited = rows[rows.video == "edited"].pivot_table(
                index="pair", columns="metric", values="value", sort=False
            )
            finished = [pair for pair in pairs if (edits / pair.id / "edited.mp4").exists()]
            run.summary["failed"] = list(failed)
            run.summary.update({f"mean/{video}/{metric}": value for (video, metric), value in means.items()})
            table = wandb.Table(columns=["pair", "source prompt", "target prompt", "source", "edited", *edited.columns])
            for pair in finished:
                videos = [
                    wandb.Video(str(edits / pair.id / f"{name}.mp4"), format="mp4") for name in ("source", "edited")
                ]
                values = edited.loc[pair.id].tolist() if pair.id in edited.index else [None] * len(edited.columns)
                table.add_data(pair.id, *pair.prompts, *videos, *values)
            run.log({"edits": table}, step=self._last + 1)

        self._last = max(self._last, len(pairs) * (self.num_steps + 1) - 1)
        self._tell(write)

    def finish(self, exit_code: int) -> None:
        """Ends the W&B run, waiting no longer than `FINISH_SECONDS` for it."""
        if self._run is not None:
            finish_in_time(self._run, exit_code)
        self._run = None

    def _tell(self, say: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            say(self._run)
        except Exception as error:
            log.warning("W&B failed (%s): the run goes on without it", one_line(error))
            broken, self._run = self._run, None
            finish_in_time(broken, 1)  # a run that stays open would take in the next one of a sweep


def finish_in_time(run: Any, exit_code: int) -> None:
    """`run.finish` beside a clock."""

    def finish() -> None:
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            log.warning("W&B did not finish (%s): `wandb sync` sends what is missing later", one_line(error))

    thread = threading.Thread(target=finish, daemon=True)
    thread.start()
    thread.join(FINISH_SECONDS)
    if thread.is_alive():
        log.warning("W&B did not finish within %d s: `wandb sync` sends what is missing later", FINISH_SECONDS)


def one_line(error: Exception) -> str:
    """An error's kind and first line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
