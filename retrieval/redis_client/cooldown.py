"""A cool-down after a failure."""

from __future__ import annotations

import time

_PAUSE_S = 1.0


class Cooldown:
    """A second without calls to a service that failed: each attempt would delay a request."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._reason = ""

    @property
    def reason(self) -> str:
        """The failure that started the current cool-down; empty if there is none."""
        return self._reason if time.monotonic() < self._until_s else ""

    def begin(self, reason: str) -> None:
        """Starts a cool-down of one second."""
        self._reason = reason
        self._until_s = time.monotonic() + _PAUSE_S
