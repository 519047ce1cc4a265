"""Edits every pair of a dataset: `python -m assd.run`, or `assd` where it is installed."""

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from assd.config import CONFIG_PATH, checked, register
from assd.data import TextVideoPair
from assd.errors import DivergedError, InputError
from assd.models import resolve_device
from assd.rundir import EditDirectory, RunDirectory

console = Console()
register()


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="config")
def app(cfg: DictConfig) -> None:
    """One run: everything the configuration names is built, then every pair is edited."""
    logging.getLogger().handlers = [RichHandler(console=console, show_path=False, show_time=False)]
    cfg = checked(cfg)
    device = resolve_device(cfg.device)
    pairs = instantiate(cfg.dataset, _convert_="all")
    method = instantiate(cfg.method, _convert_="all")
    directory = RunDirectory(Path(HydraConfig.get().runtime.output_dir))
    directory.open(cfg, device)

    console.print(f"[bold]{directory.path.name}[/]: {len(pairs)} pairs on {device}")
    failed = edit_pairs(method, pairs, directory, cfg.seed, cfg.save_frames)
    overview = directory.write_overview(pairs)
    report(directory, pairs, overview)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(pairs)} pairs could not be edited ({', '.join(failed)}); the others are kept. "
            f"The same command tries the failed ones again"
        )


def edit_pairs(
    method: Callable, pairs: list[TextVideoPair], directory: RunDirectory, seed: int, save_frames: bool
) -> list[str]:
    """Edits what isn't finished; a pair that fails is noted and the next one begins. Returns the ids that failed."""
    failed = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console) as bars:
        for pair in pairs:
            folder = directory.edit(pair)
            if folder.finished:
                continue
            try:
                edit_pair(method, pair, folder, bars, seed, save_frames)
            except (InputError, DivergedError) as error:
                folder.fail(error, seed)
                bars.console.print(Text(f"{pair.id}: {error}", style="red"))
                failed.append(pair.id)
    return failed


def edit_pair(
    method: Callable, pair: TextVideoPair, folder: EditDirectory, bars: Progress, seed: int, save_frames: bool
) -> None:
    """One pair from its frames, or its last checkpoint, to its files."""
    started = time.perf_counter()
    footage = pair.read()
    state = folder.resume()
    bar = bars.add_task(pair.id, total=method.num_steps, completed=state.step if state else 0)
    edit = method(
        footage.frames,
        pair.prompts,
        pair.id,
        resume=state,
        checkpoint=folder.checkpoint,
        advance=lambda step: bars.update(bar, completed=step),
    )
    folder.finish(edit, footage, seed, time.perf_counter() - started, save_frames)


def report(directory: RunDirectory, pairs: list[TextVideoPair], overview: Path | None) -> None:
    """The table at the end, and where to look."""
    table = Table("pair", "source", "target", "status", "seconds", title=directory.path.name, title_justify="left")
    for pair in pairs:
        record = directory.edit(pair).record
        seconds = f"{record['seconds']:.1f}" if "seconds" in record else ""
        table.add_row(*map(Text, (pair.id, *pair.prompts, record["status"], seconds)))
    console.print(table)
    if overview:
        console.print(
            f"Look at [bold]{overview}[/], and at comparison.mp4 in each folder of {directory.path / 'edits'}"
        )


def main() -> None:
    """The command line: an expected error is one sentence and exit code 1, anything else a traceback.

    Hydra is asked for full errors so that all of them arrive here; HYDRA_FULL_ERROR=1 gives every traceback.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        app()
    except (InputError, DivergedError, HydraException, OmegaConfBaseException, OSError) as error:
        if full:
            raise
        sys.exit(f"error: {sentence(error)}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")


def sentence(error: Exception) -> str:
    """What an error says to a person; of a component that refused its arguments, its own words and its name."""
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, InputError):
        where = str(error).rpartition("full_key: ")[2]
        return f"{where}: {error.__cause__}" if where else str(error.__cause__)
    return str(error)


if __name__ == "__main__":
    main()
