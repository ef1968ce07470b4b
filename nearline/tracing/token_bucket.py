"""A limit on how often something happens."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Allows so many events per second on average, and as many at once.

    Args:
        per_s: Events per second.
        clock: Monotonic seconds.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = self._tokens = per_s
        self._clock = clock
        self._at = clock()

    def take(self) -> bool:
        """Returns whether one more event is allowed now."""
        now = self._clock()
        self._tokens = min(self._per_s, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
