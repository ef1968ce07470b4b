"""Bootstrap confidence intervals of means over users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Values to draw at once, 12 MB: all draws for 100,000 users would take 2.4 GB.
_BLOCK_VALUES = 1 << 20


class Interval(NamedTuple):
    """A mean and the ends of its interval, in the unit of the values."""

    low: float
    mean: float
    high: float


def interval(
    values: NDArray[np.float64], draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Returns the percentile bootstrap interval of a mean; equal arguments give equal results.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.

    Args:
        values: (u,), one per user; at least one.
        draws: Number of samples of u users, with replacement; at least 1.
        level: Share of sample means inside the interval, 0..1.
    """
    if not len(values):
        raise ValueError("no values: an interval needs at least one user")
    if draws < 1:
        raise ValueError(f"{draws} draws: an interval needs at least one, and usually 2000")
    rng = np.random.default_rng(seed)
    size = len(values)
    means = np.empty(draws)
    block = max(1, _BLOCK_VALUES // size)
    for start in range(0, draws, block):
        part = means[start : start + block]
        chosen = rng.integers(size, size=(len(part), size), dtype=np.int32)
        part[:] = values[chosen].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(values.mean()), float(high))


def paired_interval(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the interval of the mean of ours - theirs; see `interval`.

    Both values of a user are drawn together, so differences between users do not widen it.

    Args:
        ours, theirs: (u,), for the same users in the same order.
    """
    if ours.shape != theirs.shape:
        raise ValueError(
            f"{len(ours)} values against {len(theirs)}: pass both for the same users, in one order"
        )
    return interval(ours - theirs, draws, seed, level)
