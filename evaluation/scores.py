"""Scores: one row per pair, video and metric, from the files of an edit alone.

Columns: pair; video (`source` the unedited source, `reconstruction` the source through the autoencoder, `edited`);
metric (its full name, empty where the video itself is missing); better (`higher` or `lower`); value; reason (why there
is no value, else empty).
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from assd.data import Footage, TextVideoPair
from assd.errors import InputError
from assd.rundir import EditDirectory, write_text
from assd.video import read_video, to_bytes, to_pixels
from evaluation.case import Case, Metric

log = logging.getLogger(__name__)
COLUMNS = ("pair", "video", "metric", "better", "value", "reason")
SOURCE, RECONSTRUCTION, EDITED = "source", "reconstruction", "edited"
NOT_HERE = "has no meaning here: no mask, no true edit, a part that was to change, no reconstruction, or a single frame"
SCORES_CSV = "scores.csv"


def row(
    pair: str, video: str, metric: str = "", better: str = "", value: float | None = None, reason: str = ""
) -> dict[str, object]:
    """One line of scores.csv."""
    return dict(zip(COLUMNS, (pair, video, metric, better, value, reason)))


def score_case(pair: str, video: str, case: Case, metrics: Sequence[Metric]) -> list[dict]:
    """The rows of one video. A metric that fails is a row with the reason: work already done is never lost to it."""
    rows = []
    for metric in metrics:
        value, reason = None, ""
        try:
            value = metric(case)
            reason = NOT_HERE if value is None else ""
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        rows.append(row(pair, video, metric.name, metric.better, value, reason))
    return rows


def score_files(pair: TextVideoPair, files: dict[str, Path], metrics: Sequence[Metric]) -> pd.DataFrame:
    """The scores of the source, and of videos on disk by what they are: `edited`, `reconstruction`.

    A video that can't be read is a row with the reason, and so is a pair whose source can't.
    """
    try:
        footage = in_bytes(pair.read())
    except InputError as error:
        return failure(pair, str(error))
    videos, rows = {SOURCE: footage.frames}, []
    for name, file in files.items():
        try:
            videos[name] = read_like(file, footage)
        except InputError as error:
            rows.append(row(pair.id, name, reason=str(error)))
    for name, frames in videos.items():
        case = Case(frames, pair.prompts, footage, videos.get(RECONSTRUCTION))
        rows += score_case(pair.id, name, case, metrics)
    return pd.DataFrame(rows, columns=COLUMNS)


def in_bytes(footage: Footage) -> Footage:
    """Source and true edit rounded as files hold them: of a video that equals the source every measure is perfect."""
    height, width = footage.frames.shape[-2:]

    def rounded(frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
        return to_pixels(to_bytes(frames), height, width)

    truth = None if footage.truth is None else rounded(footage.truth)
    return replace(footage, frames=rounded(footage.frames), truth=truth)


def read_like(file: Path, footage: Footage) -> Float[Tensor, "n 3 H W"]:
    """A video at the length and size of the source."""
    count, _, height, width = footage.frames.shape
    return to_pixels(read_video(file, count).frames, height, width)


def score_edit(folder: EditDirectory, metrics: Sequence[Metric]) -> pd.DataFrame:
    """The scores of one pair of a run, kept in its folder; of one without result, the reason."""
    if not folder.finished:
        return failure(folder.pair, folder.record.get("reason", "not finished"))
    files = {name: folder.path / f"{name}.mkv" for name in (RECONSTRUCTION, EDITED)}
    scores = score_files(folder.pair, files, metrics)
    if values(scores).empty and (folder.path / SCORES_CSV).is_file():
        log.warning("%s: the scores that are there stay, since %s", folder.pair.id, scores.reason.iloc[0])
        return read_scores(folder.path)
    write_scores(folder.path, scores)
    return scores


def scored_by(folder: Path, metrics: Sequence[Metric]) -> bool:
    """Whether `folder` holds the scores by just these metrics, none of which failed."""
    if not (folder / SCORES_CSV).is_file():
        return False
    scores = read_scores(folder)
    return failed(scores).empty and set(scores.metric) == {metric.name for metric in metrics}


def failure(pair: TextVideoPair, reason: str) -> pd.DataFrame:
    """The row of a pair without result."""
    return pd.DataFrame([row(pair.id, EDITED, reason=reason)], columns=COLUMNS)


def write_scores(folder: Path, scores: pd.DataFrame) -> None:
    """`folder`/scores.csv, written aside and renamed."""
    write_text(folder / SCORES_CSV, scores.to_csv(index=False))


def update_scores(folder: Path, scores: pd.DataFrame) -> None:
    """Puts the rows of these pairs into `folder`/scores.csv, where those of other pairs stay."""
    if (folder / SCORES_CSV).is_file():
        before = read_scores(folder)
        scores = pd.concat([before[~before.pair.isin(scores.pair)], scores]).sort_values("pair", kind="stable")
    write_scores(folder, scores)


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
    return scores.dropna(subset=["value"])


def failed(scores: pd.DataFrame) -> pd.DataFrame:
    """Only rows of what should have a value and has none: videos that are missing, metrics that broke."""
    return scores.loc[scores.value.isna() & ~scores.reason.isin(["", NOT_HERE])]


def scored_runs(paths: Sequence[Path]) -> list[Path]:
    """The paths that hold scores; the others (a page, a folder of folders) are named and left out.

    Raises InputError where none holds any.
    """
    found = [path for path in paths if (path / SCORES_CSV).is_file()]
    left_out = [str(path) for path in paths if path not in found]
    if not found:
        raise InputError(f"no {SCORES_CSV} in {', '.join(left_out)}: score runs with `python -m evaluation.run RUN...`")
    if left_out:
        print(f"left out, without {SCORES_CSV}: {', '.join(left_out)}", file=sys.stderr)
    return found
