"""Scores: one row per pair, video and metric, from the files of an edit alone.

Columns: pair; video (`source` the unedited source, `reconstruction` the source through the autoencoder, `edited`);
metric (its full name, empty where the video itself is missing); better (`higher` or `lower`); value; reason (why there
is no value, else empty).
"""

import io
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Footage, TextVideoPair
from assd.data.video import read_video, stretch, to_bytes, to_pixels
from assd.errors import InputError, require
from assd.files import write_text
from assd.runs.directory import EditDirectory
from assd.runs.lock import briefly_alone
from assd.runs.sweep import runs_in
from evaluation.case import Case, Metric, NoMeaning

COLUMNS = ("pair", "video", "metric", "better", "value", "reason")
SOURCE, RECONSTRUCTION, EDITED = "source", "reconstruction", "edited"
NO_MEANING = "no meaning here: "  # how the reason begins where a measure has none; runs of earlier versions say so too
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
        except NoMeaning as why:
            reason = f"{NO_MEANING}{why}"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        rows.append(row(pair, video, metric.name, metric.better, value, reason))
    return rows


def score_files(pair: TextVideoPair, files: dict[str, Path], metrics: Sequence[Metric]) -> pd.DataFrame:
    """The scores of the source, and of videos on disk by what they are: `edited`, `reconstruction`.

    A video that can't be read is a row with the reason, and so is a pair whose source can't.
    """
    try:
        footage = in_bytes(pair.read(pair.canvas))
    except InputError as error:
        return failure(pair.id, str(error))
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
    """A video at the length and size of the source, brought to it as the source was."""
    count, _, height, width = footage.frames.shape
    frames = read_video(file, count).frames
    return to_pixels(stretch(frames, height, width) if footage.stretch else frames, height, width)


def score_edit(folder: EditDirectory, metrics: Sequence[Metric]) -> pd.DataFrame:
    """The scores of one pair of a run, kept in its folder; of one without result, the reason."""
    if not folder.finished:
        return failure(folder.pair.id, folder.reason or "not finished")
    files = {name: file for name in (RECONSTRUCTION, EDITED) if (file := folder.video(name, ".mkv"))}
    files.setdefault(EDITED, folder.path / f"{EDITED}.mkv")
    scores = score_files(folder.pair, files, metrics)
    update_scores(folder.path, scores)
    return read_scores(folder.path)


def scored_by(folder: Path, metrics: Sequence[Metric]) -> bool:
    """Whether `folder` holds the scores by these metrics, none of which failed."""
    if not (folder / SCORES_CSV).is_file():
        return False
    scores = read_scores(folder)
    return failed(scores).empty and {metric.name for metric in metrics} <= set(scores.metric)


def failure(pair: str, reason: str) -> pd.DataFrame:
    """The row of a pair without result."""
    return pd.DataFrame([row(pair, EDITED, reason=reason)], columns=COLUMNS)


def update_scores(folder: Path, scores: pd.DataFrame, without_result: Collection[str] = ()) -> None:
    """Merges rows into `folder`/scores.csv, which several jobs may do.

    without_result  ids of pairs whose earlier rows go: they belong to something else than what is asked for now
    """
    with briefly_alone(folder):
        before = read_scores(folder) if (folder / SCORES_CSV).is_file() else pd.DataFrame(columns=COLUMNS)
        before = before[~before.pair.isin(list(without_result))]
        write_text(folder / SCORES_CSV, merged(before, scores).to_csv(index=False))


def merged(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """One row per pair, video and metric, in the order of the pairs: the later row, but never nothing for a value."""
    is_missing = (before.metric == "") & before.pair.isin(after.pair)  # what was said then of a video that had no file
    rows = [part for part in (before[~is_missing], after) if not part.empty]
    both = pd.concat(rows, ignore_index=True) if rows else after
    both["measured"] = both.value.notna()
    kept = both.sort_values("measured", kind="stable").drop_duplicates(["pair", "video", "metric"], keep="last")
    return kept.sort_index().sort_values("pair", kind="stable").drop(columns="measured")


def read_scores(folder: Path) -> pd.DataFrame:
    """`folder`/scores.csv. Raises InputError where there is none, or it is something else."""
    file = folder / SCORES_CSV
    if not file.is_file():
        raise InputError(f"{file} does not exist: score the run with `python -m evaluation.run {folder}`")
    text = dict.fromkeys(("pair", "video", "metric", "better", "reason"), str)
    try:
        content = file.read_text(encoding="utf-8")
        options = {"dtype": text | {"value": float}, "keep_default_na": False, "na_values": {"value": [""]}}
        scores = pd.read_csv(io.StringIO(content), **options)
        check_whole(content, scores)
    except ValueError as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{file} is damaged ({error}): remove it, and score the run again") from error
    return scores


def check_whole(content: str, scores: pd.DataFrame) -> None:
    """Raises InputError where a file of scores ends within a row, or holds something else than scores."""
    columns = tuple(scores.columns)
    require(columns == COLUMNS, f"it has the columns {', '.join(columns)}, and not {', '.join(COLUMNS)}")
    require(content.endswith("\n"), "it is cut off: its last row has no end")
    directed = scores.better.isin(["higher", "lower"]) | ((scores.better == "") & (scores.metric == ""))
    said = scores.value.notna() | (scores.reason.notna() & (scores.reason != ""))
    wrong = [str(number) for number, whole in enumerate(directed & said, start=1) if not whole]
    require(
        not wrong, f"row {', '.join(wrong)} has no value and no reason, or its metric is neither `higher` nor `lower`"
    )


def values(scores: pd.DataFrame) -> pd.DataFrame:
    """Only rows that hold a value."""
    return scores.dropna(subset=["value"])


def failed(scores: pd.DataFrame) -> pd.DataFrame:
    """Only rows of what should have a value and has none: videos that are missing, metrics that broke."""
    return scores.loc[scores.value.isna() & (scores.reason != "") & ~scores.reason.str.contains(NO_MEANING)]


def scored_runs(paths: Sequence[Path]) -> list[Path]:
    """The run directories that hold scores, of a sweep's folder its runs; others are named and left out.

    Raises InputError where none holds any.
    """
    given = runs_in(paths)
    found = [path for path in given if (path / SCORES_CSV).is_file()]
    left_out = [str(path) for path in given if path not in found]
    if not found:
        raise InputError(f"no {SCORES_CSV} in {', '.join(left_out)}: score runs with `python -m evaluation.run RUN...`")
    if left_out:
        print(f"left out, without {SCORES_CSV}: {', '.join(left_out)}", file=sys.stderr)
    return found
