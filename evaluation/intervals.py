"""Means over pairs with their intervals, and how numbers are written."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

CONFIDENCE = 0.95
RESAMPLES = 2000
UNKNOWN = "-"  # what a table shows for a value that there is not
SEED = 0  # of the resampling: the same scores give the same interval


class Mean(NamedTuple):
    """A mean over pairs, the ends of its 95 % bootstrap interval, and the number of pairs."""

    mean: float
    low: float
    high: float
    count: int


def mean(values: "pd.Series | np.ndarray | list[float]") -> Mean:
    """The mean with its percentile bootstrap interval over pairs; of fewer than two values there is no interval."""
    data = np.asarray(values, dtype=float)
    data = data[~np.isnan(data)]
    if not len(data):
        return Mean(np.nan, np.nan, np.nan, 0)
    if len(data) == 1:
        return Mean(float(data[0]), np.nan, np.nan, 1)
    interval = bootstrap(
        (data,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="percentile", rng=SEED
    ).confidence_interval
    return Mean(float(data.mean()), float(interval.low), float(interval.high), len(data))


def paired_difference(a: pd.Series, b: pd.Series) -> Mean:
    """The mean of a - b over the pairs that both have, indexed by pair: its interval is the one to judge by."""
    both = a.index.intersection(b.index)
    return mean(a[both] - b[both])


def number(value: float) -> str:
    """Three significant places after the point for shares and cosines, fewer for larger numbers."""
    if np.isnan(value):
        return UNKNOWN
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}"


def with_interval(m: Mean) -> str:
    """`0.812 [0.790, 0.835]`."""
    return number(m.mean) if np.isnan(m.low) else f"{number(m.mean)} [{number(m.low)}, {number(m.high)}]"
