"""Scores: one row per pair, video and metric, from the files of an edit alone.

Columns: pair; video (`source` the unedited source, `reconstruction` the source through the autoencoder, `edited`);
metric (its full name); better (`higher` or `lower`); value; reason (why there is no value, else empty).
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from assd.data import TextVideoPair
from assd.errors import InputError
from assd.rundir import EditDirectory, write_text
from assd.video import read_video, to_pixels
from evaluation.case import Case, Metric

log = logging.getLogger(__name__)
COLUMNS = ("pair", "video", "metric", "better", "value", "reason")
EDITED = "edited"
SCORES_CSV = "scores.csv"


def score_video(pair: TextVideoPair, video: str, case: Case, metrics: Iterable[Metric]) -> list[dict]:
    """The rows of one video; a metric that has no meaning for it has none."""
    rows = []
    for metric in metrics:
        value = metric(case)
        if value is not None:
            rows.append(row(pair.id, video, metric.name, metric.better, value))
    return rows


def row(
    pair: str, video: str, metric: str = "", better: str = "", value: float | None = None, reason: str = ""
) -> dict:
    """One line of scores.csv."""
    return dict(zip(COLUMNS, (pair, video, metric, better, value, reason)))


def failure(pair: TextVideoPair, reason: str) -> pd.DataFrame:
    """The row of a pair without result."""
    return pd.DataFrame([row(pair.id, EDITED, reason=reason)], columns=COLUMNS)


def score_files(pair: TextVideoPair, files: dict[str, Path], metrics: Iterable[Metric]) -> pd.DataFrame:
    """The scores of videos on disk, by what they are: `edited`, and where there are such files, the others.

    Videos are read as they lie there, also the source, so that all have been through the same encoder. A video that
    can't be read is a row with the reason.
    """
    try:
        footage = pair.read()
        count, _, height, width = footage.frames.shape
        videos = {name: to_pixels(read_video(file, count).frames, height, width) for name, file in files.items()}
    except InputError as error:
        return failure(pair, str(error))
    cases = {name: Case(video, pair.prompts, footage, videos.get("reconstruction")) for name, video in videos.items()}
    metrics = list(metrics)
    rows = [row for name, case in cases.items() for row in score_video(pair, name, case, metrics)]
    return pd.DataFrame(rows, columns=COLUMNS)


def score_edit(folder: EditDirectory, metrics: Iterable[Metric]) -> pd.DataFrame:
    """The scores of one pair of a run, kept in its folder."""
    if not folder.finished:
        return failure(folder.pair, folder.record.get("reason", "not finished"))
    files = {name: folder.path / f"{name}.mp4" for name in ("source", "reconstruction", EDITED)}
    scores = score_files(folder.pair, files, metrics)
    write_scores(folder.path, scores)
    return scores


def write_scores(folder: Path, scores: pd.DataFrame) -> None:
    """`folder`/scores.csv, written aside and renamed."""
    write_text(folder / SCORES_CSV, scores.to_csv(index=False))


def read_scores(folder: Path) -> pd.DataFrame:
    """`folder`/scores.csv. Raises InputError where there is none, or it is something else."""
    file = folder / SCORES_CSV
    if not file.is_file():
        raise InputError(f"{file} does not exist: score the run with `python -m evaluation.run {folder}`")
    text = dict.fromkeys(("pair", "video", "metric", "better", "reason"), str)
    scores = pd.read_csv(file, dtype=text, keep_default_na=False, na_values={"value": [""]})
    if tuple(scores.columns) != COLUMNS:
        raise InputError(f"{file} has the columns {', '.join(scores.columns)}, and not {', '.join(COLUMNS)}")
    return scores


def values(scores: pd.DataFrame) -> pd.DataFrame:
    """Only rows that hold a value."""
    return scores[scores.metric != ""]
