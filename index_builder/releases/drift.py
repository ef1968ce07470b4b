"""Drift: how differently the newest recorded searches score from the first ones of a snapshot."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import ArrayLike

from nearline.store.snapshot import Store
from nearline.store.traffic import read_traffic

# Drift above this is large.
LIMIT = 0.25
# As many as routers keep.
_MAX_REQUESTS = 10_000
# Searches on either side. With 200, two samples of the same distribution differ by more than LIMIT
# about once in 20,000 times.
_LEAST, _MOST_FIRST, _MOST_LAST = 200, 1_000, 500
_BINS = 5


def measure_drift(store: Store, collection: str) -> float:
    """Returns the population stability index of the best scores of recorded searches.

    The newest searches that the current snapshot answered are compared with its first ones.
    Searches with a filter, boosts or the taste of a user are left out. Scores of different modes
    are not comparable, so the largest index of a mode counts.

    Returns: 0 until 400 searches of one mode are recorded.
    Raises: NotFound: Nothing is published. SnapshotCorrupt: A file of recorded requests cannot be
        read. StoreError.
    """
    current = store.alias_in_force(collection).current
    scores: dict[tuple[int, bool], list[float]] = defaultdict(list)
    requests = read_traffic(store, collection, _MAX_REQUESTS)
    for one in sorted(requests, key=lambda one: one.time.ToNanoseconds()):
        options = one.search.options
        plain = not (options.HasField("filter") or options.boosts or one.personal)
        if one.snapshot_id == current and one.HasField("search") and one.scores and plain:
            # Without its text, a query is recorded without its mode, too.
            scores[options.mode, bool(one.vector)].append(one.scores[0])
    return max((_drift_of(found) for found in scores.values()), default=0.0)


def _drift_of(scores: list[float]) -> float:
    """Returns the index of the last scores against the first; 0 if there are too few."""
    half = len(scores) // 2
    if half < _LEAST:
        return 0.0
    return stability_index(scores[:half][:_MOST_FIRST], scores[half:][-_MOST_LAST:])


def stability_index(baseline: ArrayLike, sample: ArrayLike, bins: int = _BINS) -> float:
    """Returns the population stability index of a sample against a baseline.

    The index is the sum over bins of (s - b) ln(s / b), where b and s are the shares of baseline
    and sample. Bins are quantiles of the baseline, and half an observation is added to each bin so
    that no share is 0. Usual bands: below 0.1 nothing has changed; from 0.25 on much has changed.
    Two samples of one distribution give about (bins - 1) (1 / n + 1 / m).

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
