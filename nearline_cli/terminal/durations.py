"""Durations as users write them: 90s, 10m, 24h, 7d."""

from __future__ import annotations

import re

from nearline.errors import InvalidRequest

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def parse_duration(text: str, option: str) -> float:
    """Returns the seconds of a duration such as 24h; a number without a unit is seconds.

    Args:
        text: The duration.
        option: Name of the option, for the error.
    Raises:
        InvalidRequest: The text is not a duration.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            f"{option} {text!r} is not a duration; write 90s, 10m, 24h or 7d",
            field=option.lstrip("-").replace("-", "_"),
        )
    return float(found[1]) * _SECONDS[found[2] or "s"]
