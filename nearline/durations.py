"""Durations as people write them: 500ms, 10s, 15m, 24h, 7d."""

from __future__ import annotations

import re

from nearline.errors import InvalidRequest

EXAMPLES = "500ms, 10s, 15m, 24h or 7d"
_WRITTEN = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s?(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


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
