"""Logs once that the queue is unavailable, and once that it is back."""

from __future__ import annotations

import logging
import time


class AvailabilityLog:
    """Logs changes of whether the queue is available, not every failure between two of them.

    Args:
        log: Receives a warning when the queue becomes unavailable, and a note when it is back.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._away_since: float | None = None

    def failed(self, reason: str) -> None:
        """Records a failure."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._log.warning("queue unavailable", extra={"reason": reason})

    def succeeded(self) -> None:
        """Records a success."""
        if self._away_since is not None:
            away_s = round(time.monotonic() - self._away_since, 1)
            self._away_since = None
            self._log.info("queue available again", extra={"away_s": away_s})
