"""A budget that limits retries and hedged calls in proportion to first calls."""

from __future__ import annotations


class RetryBudget:
    """Allows extra calls in proportion to first calls, so that they never multiply an overload.

    Args:
        ratio: Extra calls earned by each first call, 0..1.
        floor_per_s: Extra calls earned per second at any load, so that a failure in quiet times
            can still be retried.
        burst: Maximum number of saved calls, and the initial number.
    Source: a token bucket as in Finagle's RetryBudget (percentCanRetry, minRetriesPerSec).
    """

    def __init__(self, ratio: float, *, floor_per_s: float, burst: float) -> None:
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._burst = burst
        self._tokens = burst
        self._since = 0.0

    def earn(self) -> None:
        """Counts a first call."""
        self._tokens = min(self._burst, self._tokens + self._ratio)

    def spend(self, now: float, keep: float = 0.0) -> bool:
        """Spends one extra call; returns False if the budget is exhausted.

        Args:
            now: Seconds of a monotonic clock; always the same clock.
            keep: Number of calls to reserve for more urgent use.
        """
        earned = self._floor_per_s * (now - self._since)
        self._since = now
        self._tokens = min(self._burst, self._tokens + earned)
        if self._tokens < 1 + keep:
            return False
        self._tokens -= 1
        return True
