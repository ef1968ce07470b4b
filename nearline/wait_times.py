"""Times that work waits for the event loop and for threads: the sign of overload."""

from __future__ import annotations

import threading
from typing import Final


class WaitTimes:
    """Times that work which was begun waited for the event loop or a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By the id of what was waited for, which this must not keep alive.
        self._least_s: dict[int, float] = {}

    def note(self, where: object, waited_s: float) -> None:
        """Notes that a piece of work waited. Thread-safe.

        where: What it waited for: an event loop, a pool of threads.
        """
        with self._lock:
            self._least_s[id(where)] = min(waited_s, self._least_s.get(id(where), waited_s))

    def take(self) -> float:
        """Returns the seconds that everything waited somewhere since the last call; 0 if none."""
        with self._lock:
            least_s, self._least_s = self._least_s, {}
        return max(least_s.values(), default=0.0)


# Those of this process.
WAITS: Final = WaitTimes()
