"""How many calls beyond the first may be made."""

from __future__ import annotations


class RetryBudget:
    """Allows extra calls in proportion to the calls made, so that they never multiply an overload.

    Args:
        ratio: Extra calls earned by each call, 0..1.
        floor_per_s: Extra calls earned per second however few calls there are, so that a failure
            in quiet times does not go unanswered.
        burst: Most that can be saved up, and what there is at first.
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
        """Takes an extra call; False where there is none to take.

        Args:
            now: Seconds of any clock that does not go back; the same one every time.
            keep: Calls to leave for those that need them more.
        """
        earned = self._floor_per_s * (now - self._since)
        self._since = now
        self._tokens = min(self._burst, self._tokens + earned)
        if self._tokens < 1 + keep:
            return False
        self._tokens -= 1
        return True
