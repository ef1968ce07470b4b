"""Whether the canary is slower: in the body of its latencies, and in their tail."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict

from nearline.quantiles import RecentQuantiles
from retrieval.rollout.distinct_sampler import LATENCY, TAIL, DistinctSampler
from retrieval.rollout.evidence.rank_test import BIN_ENDS, RankTest
from retrieval.rollout.evidence.share_test import ShareTest

# Where requests are dealt by unit, one unit in so many sets the thresholds and is not judged by
# them: a unit's own latencies would move what it is held against, in one arm and not the other.
_ONE_SETS_IN = 8
# A unit counts once for each of these, by the mean over so many requests: who asks often tells
# more than by one request, and who asks seldom counts all the same.
_BLOCKS = (1, 4, 16)
_MOST_OPEN = 1 << 15
_LEAST_S = 1e-9


class LatencyTest:
    """Tests latencies of the canary against those of the current snapshot at the same time.

    Where the canary, its latencies divided by `ratio`, is as quick, each test holds as the one that
    it is made of does: thresholds follow from what went before, and a draw is counted once.

    Args:
        share: Chance of the canary, more than 0 and less than 1.
        ratio: Latency that it may have, as a multiple, >= 1.
        units: What has counted each unit; None: each request is dealt by itself.

    tail: Of requests slower than the current snapshot's recent 95th percentile.
    """

    def __init__(self, share: float, ratio: float, units: DistinctSampler | None) -> None:
        self.tail = ShareTest(share, "greater")
        self._shift = math.log(ratio)
        self._units = units
        self._levels = [
            _BlockTest(size, share) for size in (_BLOCKS if units is not None else (1,))
        ]

    def add(self, canary: bool, unit: int, seconds: float, *, judged: bool) -> None:
        """Takes in a request that did not fail.

        Args:
            unit: 64-bit hash of what it was dealt by.
            judged: False: it may set thresholds, and speaks for or against nobody.
        """
        value = math.log(max(seconds, _LEAST_S)) - (self._shift if canary else 0.0)
        units = self._units
        sets = units is None or unit % _ONE_SETS_IN == 0
        if judged and not (sets and units is not None):
            for number, level in enumerate(self._levels):
                mean, ends = level.mean(unit, value), level.thresholds.values
                if mean is None or not ends:
                    continue
                fell_into = bisect_left(ends, mean)
                if units is None or units.first(unit, LATENCY << number):
                    level.test.event(canary, fell_into)
                in_tail = number == 0 and fell_into == len(ends)
                if in_tail and (units is None or units.first(unit, TAIL)):
                    self.tail.event(canary)
        if sets and not canary:
            for level in self._levels:
                mean = level.mean(unit, value)
                if mean is not None:
                    level.thresholds.observe(mean)

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence of the body: that of the best block size, shared."""
        return max(level.test.log_evidence for level in self._levels) - math.log(len(self._levels))


class _BlockTest:
    """A test by means over blocks of so many requests of a unit."""

    def __init__(self, size: int, share: float) -> None:
        self.thresholds = RecentQuantiles(BIN_ENDS)
        self.test = RankTest(share)
        self._size = size
        # Not a dict: to find its oldest entry it would pass all that were taken out before it.
        self._open: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def mean(self, unit: int, value: float) -> float | None:
        """Returns the mean of a block that is full with this value; None: it is not."""
        if self._size == 1:
            return value
        count, total = self._open.pop(unit, (0, 0.0))
        if count + 1 == self._size:
            return (total + value) / self._size
        self._open[unit] = (count + 1, total + value)
        if len(self._open) > _MOST_OPEN:
            # The one that waited longest begins again, if it ever comes back.
            self._open.popitem(last=False)
        return None
