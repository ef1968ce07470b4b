"""Tests whether the canary is slower, in the body and in the tail of its latencies."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict

from retrieval.protocols.quantiles import RecentQuantiles
from retrieval.rollout.distinct_sampler import LATENCY, TAIL, DistinctSampler
from retrieval.rollout.evidence import BIN_ENDS, RankTest, ShareTest

# If requests are split by unit, one in this many units sets the thresholds, and is not compared
# with them; otherwise a unit would shift its own thresholds, in one arm but not in the other.
_UNITS_PER_THRESHOLD_UNIT = 8
# A unit counts once per block size, with its mean over a block of that many requests. So frequent
# users contribute more than one request, and rare users still count.
_BLOCKS = (1, 4, 16)
_MAX_OPEN_BLOCKS = 1 << 15
_MIN_S = 1e-9


class LatencyTest:
    """Compares latencies of the canary with concurrent latencies of the current snapshot.

    If the canary is as fast after its latencies are divided by `ratio`, each test is as valid as
    the test that it is built from: thresholds depend only on the past, and each draw counts once.

    Args:
        share: Probability that a request is assigned to the canary, more than 0 and less than 1.
        ratio: Allowed latency as a multiple of the current snapshot's, >= 1.
        units: Counts each unit once. If None, each request is a unit of its own.

    tail: Test of requests slower than the recent 95th percentile of the current snapshot.
    """

    def __init__(self, share: float, ratio: float, units: DistinctSampler | None) -> None:
        self.tail = ShareTest(share, "greater")
        self._shift = math.log(ratio)
        self._units = units
        self._levels = [
            _BlockTest(size, share) for size in (_BLOCKS if units is not None else (1,))
        ]

    def add(self, canary: bool, unit: int, seconds: float, *, judged: bool) -> None:
        """Records a successful request.

        Args:
            canary: Whether the request was assigned to the canary.
            unit: 64-bit hash of the unit.
            seconds: Duration, >= 0.
            judged: Whether the request counts in the tests; if not, it may only set thresholds.
        """
        value = math.log(max(seconds, _MIN_S)) - (self._shift if canary else 0.0)
        units = self._units
        sets = units is None or unit % _UNITS_PER_THRESHOLD_UNIT == 0
        if judged and not (sets and units is not None):
            for number, level in enumerate(self._levels):
                mean, ends = level.mean(unit, value), level.thresholds.values
                if mean is None or not ends:
                    continue
                bin_number = bisect_left(ends, mean)
                if units is None or units.first(unit, LATENCY << number):
                    level.test.event(canary, bin_number)
                in_tail = number == 0 and bin_number == len(ends)
                if in_tail and (units is None or units.first(unit, TAIL)):
                    self.tail.event(canary)
        if sets and not canary:
            for level in self._levels:
                mean = level.mean(unit, value)
                if mean is not None:
                    level.thresholds.observe(mean)

    @property
    def log_evidence(self) -> float:
        """Log evidence in the body: that of the best block size, minus log(number of sizes)."""
        return max(level.test.log_evidence for level in self._levels) - math.log(len(self._levels))


class _BlockTest:
    """Tests the means over blocks of requests of a unit."""

    def __init__(self, size: int, share: float) -> None:
        self.thresholds = RecentQuantiles(BIN_ENDS)
        self.test = RankTest(share)
        self._size = size
        # Not a dict, which would scan all removed entries to find its oldest entry.
        self._open: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def mean(self, unit: int, value: float) -> float | None:
        """Returns the mean of a block if this value completes it, otherwise None."""
        if self._size == 1:
            return value
        count, total = self._open.pop(unit, (0, 0.0))
        if count + 1 == self._size:
            return (total + value) / self._size
        self._open[unit] = (count + 1, total + value)
        if len(self._open) > _MAX_OPEN_BLOCKS:
            # The oldest unit starts a new block if it returns.
            self._open.popitem(last=False)
        return None
