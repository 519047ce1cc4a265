"""Scores: one row per pair, video and metric, from the files of an edit alone.

Columns: pair; video (`source` the unedited source, `reconstruction` the source through the autoencoder, `edited`);
metric (its full name, empty where the video itself is missing); better (`higher` or `lower`); value; reason (why there
is no value, else empty).
"""

import io
import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from assd.data.pairs import Canvas, Footage, TextVideoPair
from assd.data.video import fill_masks, read_video, stretch, to_bytes, to_pixels
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
    """The rows of one video. A metric that fails is a row with the reason: work already done is never lost to it.

    NaN and infinity are no values: neither can be ranked, nor is there a mean with them.
    """
    rows = []
    for metric in metrics:
        value, reason = None, ""
        try:
            value = float(metric(case))
        except NoMeaning as why:
            reason = f"{NO_MEANING}{why}"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if value is not None and not math.isfinite(value):
            value, reason = None, f"returned {value}"
        rows.append(row(pair, video, metric.name, metric.better, value, reason))
    return rows


def score_files(pair: TextVideoPair, files: dict[str, Path], metrics: Sequence[Metric]) -> pd.DataFrame:
    """The scores of the source, and of videos on disk by what they are: `edited`, `reconstruction`.

    A video that can't be read is a row with the reason, and so is a pair whose source can't.
    """
    try:
        footage = pair.read(pair.canvas)
        edits, unread = read_edits(files, footage)
        footage = in_bytes(as_edited(pair, footage, edits), pair.canvas)
    except InputError as error:
        return failure(pair.id, str(error))
    rows = [row(pair.id, name, reason=reason) for name, reason in unread.items()]
    videos = {SOURCE: footage.frames} | {name: on_canvas(frames, footage) for name, frames in edits.items()}
    for name, frames in videos.items():
        case = Case(frames, pair.prompts, footage, videos.get(RECONSTRUCTION))
        rows += score_case(pair.id, name, case, metrics)
    return pd.DataFrame(rows, columns=COLUMNS)


def read_edits(files: dict[str, Path], footage: Footage) -> tuple[dict[str, UInt8[Tensor, "n H W 3"]], dict[str, str]]:
    """The videos that can be read, each at its own size, and why the others can't.

    Of a longer one the frames are taken as the source's were: the first ones, or evenly spaced ones. The latter are the
    nearest in time, up to half a step away where the edit itself is of evenly spaced frames.
    """
    edits, unread = {}, {}
    for name, file in files.items():
        try:
            edits[name] = read_video(file, len(footage.frames), footage.first).frames
        except InputError as error:
            unread[name] = str(error)
    return edits, unread


def as_edited(pair: TextVideoPair, footage: Footage, edits: dict[str, UInt8[Tensor, "n H W 3"]]) -> Footage:
    """The source as those who edited it saw it: on the edits' own canvas, where its aspect ratio is not the scores'.

    An edit shows what was left when its source was cropped, and is cropped once more to be scored. A source that is
    cropped to the scores' canvas at once shows more, and nothing in it lies where it lies in the edit. The editor crops
    to the middle; other programs do so too, or keep the whole frame. One that squeezes the frame can't be told by its
    videos' size: bring them back to the source's aspect ratio. What is stretched (FiVE-Bench) is all there at any size.

    Raises InputError where the source can't be read on that canvas.
    """
    canvas = pair.canvas
    for frames in edits.values():  # an edit and its reconstruction are of one size
        height, width = frames.shape[1:3]
        if not footage.stretch and height * canvas.width != width * canvas.height:
            return pair.read(replace(canvas, height=height, width=width))
    return footage


def in_bytes(footage: Footage, canvas: Canvas) -> Footage:
    """The footage rounded as files hold it, then brought to a canvas as edits are.

    Of a video that equals the source every measure is then perfect.
    """
    same = footage.frames.shape[-2:] == (canvas.height, canvas.width)

    def fitted(frames: Float[Tensor, "n 3 H W"] | None) -> Float[Tensor, "n 3 h w"] | None:
        return None if frames is None else to_pixels(to_bytes(frames), canvas.height, canvas.width)

    def fitted_masks(masks: Bool[Tensor, "n H W"] | None) -> Bool[Tensor, "n h w"] | None:
        return None if masks is None else fill_masks(masks, canvas.height, canvas.width)

    return replace(
        footage,
        frames=fitted(footage.frames),
        masks=fitted_masks(footage.masks),
        truth=fitted(footage.truth),
        bystander=fitted_masks(footage.bystander),
        flow=footage.flow if same else None,
    )


def on_canvas(frames: UInt8[Tensor, "n H W 3"], footage: Footage) -> Float[Tensor, "n 3 h w"]:
    """A video at the size of the source, brought to it as the source was."""
    height, width = footage.frames.shape[-2:]
    return to_pixels(stretch(frames, height, width) if footage.stretch else frames, height, width)


def score_edit(folder: EditDirectory, metrics: Sequence[Metric]) -> pd.DataFrame:
    """The scores of one pair of a run, kept in its folder beside those by other metrics; without result, the reason."""
    if not folder.finished:
        return failure(folder.pair.id, folder.reason or "not finished")
    files = {name: file for name in (RECONSTRUCTION, EDITED) if (file := folder.video(name, ".mkv"))}
    files.setdefault(EDITED, folder.path / f"{EDITED}.mkv")
    scores = score_files(folder.pair, files, metrics)
    merge_scores(folder.path, scores)
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


def update_scores(folder: Path, scores: pd.DataFrame) -> None:
    """Puts all that is known of some pairs into a run's scores.csv, where those of other pairs stay.

    Earlier rows of these pairs go: an edit that was removed leaves nothing behind, not even when it was made again.
    Whatever was measured of an edit that is still there lies in its own folder.
    """
    merge_scores(folder, scores, gone=list(scores.pair))


def merge_scores(folder: Path, scores: pd.DataFrame, gone: Collection[str] = ()) -> None:
    """Merges rows by pair, video and metric into `folder`/scores.csv, which several jobs may do.

    gone  ids of pairs whose earlier rows go: what they measured is no longer there
    """
    with briefly_alone(folder):
        before = read_scores(folder) if (folder / SCORES_CSV).is_file() else pd.DataFrame(columns=COLUMNS)
        before = before[~before.pair.isin(list(gone))]
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
