"""Durations: as people write them (500ms, 10s, 15m, 24h, 7d), and what is left of some work."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable

from nearline.errors import InvalidRequest

EXAMPLES = "500ms, 10s, 15m, 24h or 7d"
_WRITTEN = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s?(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
# Of an estimate: below that, a rate says little.
_LEAST_ELAPSED_S = 2.0
# The rate of the last half minute, if it is the lower one, counts.
_RECENT_S = 30.0
_MOST_POINTS = 512
# Shown while work goes on that should be done already.
_LEAST_S = 1.0
# An estimate that is shown rises only if the new one is so many times as long.
_WRONG = 4 / 3


class Duration(float):
    """Seconds that are shown as people write them: Duration(10) is "10s"."""

    def __str__(self) -> str:
        """Returns the duration in its largest unit that divides it."""
        for unit in ("d", "h", "m"):
            if self and not self % _SECONDS[unit]:
                return f"{self / _SECONDS[unit]:g}{unit}"
        return f"{self * 1e3:g}ms" if 0 < self < 1 else f"{float(self):g}s"


def is_duration(text: str) -> bool:
    """Returns whether `parse_duration` reads a text."""
    return _WRITTEN.fullmatch(text.strip()) is not None


def parse_duration(text: str, field: str) -> float:
    """Returns the seconds of a duration such as 24h; a number without a unit is seconds.

    Args:
        text: The duration.
        field: Name of the option or field, for the error.
    Raises:
        InvalidRequest: The text is not a duration.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            f"{field} {text!r} is not a duration; write {EXAMPLES}",
            field=field.lstrip("-").replace("-", "_"),
        )
    return float(found[1]) * _SECONDS[found[2] or "s"]


class RemainingTime:
    """The time that is left of some work, from how much of it is done.

    Of the rate since the beginning and the recent one, the lower counts: an estimate that is too
    long falls quickly, while one that is too short has to wait until it is true. It rises only if
    it was wrong by a third.

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
        shown = self._shown
        if shown is None or left < shown or left > _WRONG * shown:
            self._shown = left
        return self._shown
