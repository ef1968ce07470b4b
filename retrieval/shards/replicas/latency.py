"""What calls have taken lately: an average that fades, and a percentile."""

from __future__ import annotations

import math
from collections import deque

# A sample counts for a tenth; after a second without one, the average has lost two thirds. So a
# replica that was slow once is tried again soon, and one that is slow stays the second choice.
_SAMPLE_WEIGHT = 0.1
_FADE_S = 1.0


class FadingAverage:
    """An exponentially weighted average of latencies that falls while nothing is observed."""

    def __init__(self) -> None:
        self._average_s = 0.0
        self._at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """Takes a latency in.

        Args:
            seconds: The latency.
            now: Seconds of any clock that does not go back; the same one every time.
        """
        before = self.value(now)
        self._average_s = before + _SAMPLE_WEIGHT * (seconds - before) if before else seconds
        self._at = now

    def value(self, now: float) -> float:
        """Returns the average in seconds; 0 before the first sample."""
        return self._average_s * math.exp(min(0.0, self._at - now) / _FADE_S)


class RecentPercentile:
    """A percentile of the latest latencies, computed again every so often.

    Args:
        ratio: Which one, 0..1.
        window: Samples looked at.
        every: Samples between computations; before the first there is no value.
    """

    def __init__(self, ratio: float, *, window: int = 256, every: int = 32) -> None:
        self.value: float | None = None
        self._ratio = ratio
        self._every = every
        self._until_next = every
        self._latest: deque[float] = deque(maxlen=window)

    def observe(self, seconds: float) -> None:
        """Takes a latency in."""
        self._latest.append(seconds)
        self._until_next -= 1
        if self._until_next == 0:
            self._until_next = self._every
            ordered = sorted(self._latest)
            self.value = ordered[math.ceil(self._ratio * len(ordered)) - 1]
