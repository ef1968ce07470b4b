"""Estimates when work will be done: counts down between reports, and never rises."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

# Below that, a rate says little.
_LEAST_ELAPSED_S = 2.0
# The rate of the last half minute, if it is the lower one, counts.
_RECENT_S = 30.0
_MOST_POINTS = 512
# Shown while work goes on that should be done already.
_LEAST_S = 1.0


class RemainingTime:
    """The time that is left of some work, from how much of it is done.

    Of the rate since the beginning and the recent one, the lower counts: an estimate that is too
    long falls quickly, while one that is too short would have to wait until it is true.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._points = deque([(self._start, 0.0)], maxlen=_MOST_POINTS)
        self._end: float | None = None
        self._shown: float | None = None

    def update(self, done: float, total: float) -> None:
        """Takes how much is done since the beginning, and how much there is to do, in any unit."""
        now = self._clock()
        while len(self._points) > 1 and self._points[1][0] < now - _RECENT_S:
            self._points.popleft()
        since, before = self._points[0]
        self._points.append((now, done))
        elapsed = now - self._start
        if elapsed < _LEAST_ELAPSED_S or done <= before:
            return
        seconds_per_unit = max(elapsed / done, (now - since) / (done - before))
        self._end = now + max(total - done, 0.0) * seconds_per_unit

    def seconds(self) -> float | None:
        """Returns the seconds that are left now; None while nothing can be said."""
        if self._end is None:
            return None
        left = max(self._end - self._clock(), _LEAST_S)
        self._shown = left if self._shown is None else min(self._shown, left)
        return self._shown
