"""Trend of a quantity over time, with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Neighbouring samples are alike; means of blocks are nearly independent.
_BLOCK_S = 15.0
_LEAST_BLOCKS = 4
# Of the normal distribution, for a confidence of 95 %.
_Z = 1.959964


class Trend(NamedTuple):
    """Slope per hour with its interval of 95 % confidence; blocks: Number of independent means."""

    per_hour: float
    low: float
    high: float
    blocks: int


def fit_trend(times_s: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Fits a line by least squares to the means of blocks of 15 s; None: there are too few."""
    times, measured = np.asarray(times_s), np.asarray(values, dtype=np.float64)
    if not len(times):
        return None
    block = ((times - times[0]) // _BLOCK_S).astype(int)
    numbers = np.unique(block)
    if len(numbers) < _LEAST_BLOCKS:
        return None
    x = np.array([times[block == number].mean() for number in numbers]) / 3600.0
    y = np.array([measured[block == number].mean() for number in numbers])
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    residuals = y - y.mean() - slope * (x - x.mean())
    free = len(numbers) - 2
    half = student_quantile(free) * math.sqrt(float((residuals**2).sum()) / free / spread)
    return Trend(slope, slope - half, slope + half, len(numbers))


def student_quantile(free: int) -> float:
    """Returns the quantile of Student's distribution for 95 % confidence, good to 2 %.

    free: Degrees of freedom, at least 2. The expansion is that of Cornish and Fisher.
    """
    first = (_Z**3 + _Z) / (4 * free)
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * free**2)
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / (384 * free**3)
    return _Z + first + second + third
