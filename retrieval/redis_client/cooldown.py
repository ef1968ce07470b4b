"""A pause in which nobody asks what has just failed."""

from __future__ import annotations

import time

_PAUSE_S = 1.0


class Cooldown:
    """Begins when something does not answer: each try would cost a request the time it waits."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._reason = ""

    @property
    def reason(self) -> str:
        """Why it is left alone; empty: it may be asked."""
        return self._reason if time.monotonic() < self._until_s else ""

    def begin(self, reason: str) -> None:
        """Leaves it alone for a second."""
        self._reason = reason
        self._until_s = time.monotonic() + _PAUSE_S
