"""Distances between two samples or distributions. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10
_MOST_PAIRED = 200


def stability_index(baseline: ArrayLike, sample: ArrayLike, bins: int = BINS) -> float:
    """Returns the population stability index of a sample against a baseline.

    The index is the sum over bins of (s - b) ln(s / b), where b and s are the shares of baseline
    and sample. Bins are quantiles of the baseline, and half an observation is added to each bin so
    that no share is 0. Usual bands: below 0.1 nothing has changed; from 0.25 on much has changed.
    Two samples of one distribution give about (bins - 1) (1 / n + 1 / m), so use hundreds of each.

    Args:
        baseline: (n,) numbers, n >= 1.
        sample: (m,) numbers, m >= 1.
        bins: Number of quantile bins, >= 2; differs if many numbers of the baseline are equal.
    Returns: >= 0.
    Source: Siddiqi, Credit Risk Scorecards (2006), system stability report; the mean under no
        change: Yurdakul (2018), Statistical Properties of Population Stability Index.
    """
    before, now = np.asarray(baseline, np.float64), np.asarray(sample, np.float64)
    cuts = np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1])
    edges, times = np.unique(cuts, return_counts=True)
    # A value on which several cuts fall gets its own bin.
    edges = np.union1d(edges, np.nextafter(edges[times > 1], np.inf))
    shares = []
    for numbers in (before, now):
        counts = np.bincount(
            np.searchsorted(edges, numbers, side="right"), minlength=len(edges) + 1
        )
        shares.append((counts + 0.5) / (len(numbers) + 0.5 * len(counts)))
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def jensen_shannon(one: ArrayLike, other: ArrayLike) -> float:
    """Returns the Jensen-Shannon divergence of two distributions, in bits.

    Args:
        one, other: (n,) numbers >= 0, not all 0; normalized by their sums.
    Returns: 0 (the same) to 1 (nothing in common).
    Source: Lin (1991), Divergence Measures Based on the Shannon Entropy.
    """
    p, q = (np.asarray(each, np.float64) / np.sum(each) for each in (one, other))
    middle = (p + q) / 2
    return float(max(0.0, _entropy(middle) - (_entropy(p) + _entropy(q)) / 2))


def direction_distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Returns 1 - cosine of the mean vectors of two samples, (n, d) and (m, d); 0..2."""
    a, b = one.mean(axis=0, dtype=np.float64), other.mean(axis=0, dtype=np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 - float(a @ b) / norms if norms else 0.0


def energy_distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Returns the normalized energy distance of two samples of vectors.

    With X, X' from one sample and Y, Y' from the other, it is
    1 - (E|X - X'| + E|Y - Y'|) / 2 E|X - Y|. It uses at most 200 evenly spaced vectors per sample
    and omits pairs of a vector with itself, so that two samples of one distribution give about 0.

    Args:
        one, other: (n, d) and (m, d), with at least two vectors each.
    Returns: 0 (the same) to 1.
    Source: Szekely and Rizzo (2013), Energy statistics: its coefficient of inhomogeneity.
    """
    x, y = _some(one), _some(other)
    between = float(_distances(x, y).mean())
    if not between:
        return 0.0
    within = sum(_distances(each, each).sum() / (len(each) * (len(each) - 1)) for each in (x, y))
    return max(0.0, 1.0 - float(within) / (2 * between))


def _entropy(p: NDArray[np.float64]) -> float:
    positive = p[p > 0]
    return float(-np.sum(positive * np.log2(positive)))


def _some(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    count = min(len(vectors), _MOST_PAIRED)
    return vectors[np.linspace(0, len(vectors) - 1, count).astype(np.int64)].astype(np.float64)


def _distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)[None] - 2 * x @ y.T
    # Rounding must not give a vector a distance from itself.
    if x is y:
        np.fill_diagonal(squares, 0.0)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0.0))
    return distances
