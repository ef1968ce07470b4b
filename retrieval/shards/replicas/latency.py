"""A latency average that fades while nothing is observed."""

from __future__ import annotations

import math

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
        """Records a latency.

        Args:
            seconds: The latency.
            now: Seconds of a monotonic clock; always the same clock.
        """
        before = self.value(now)
        self._average_s = before + _SAMPLE_WEIGHT * (seconds - before) if before else seconds
        self._at = now

    def value(self, now: float) -> float:
        """Returns the average in seconds; 0 before the first sample."""
        return self._average_s * math.exp(min(0.0, self._at - now) / _FADE_S)
