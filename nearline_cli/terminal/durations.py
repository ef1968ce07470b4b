"""Times that people write: 90s, 10m, 24h, 7d."""

from __future__ import annotations

import re

from nearline.errors import InvalidRequest

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def parse_duration(text: str, option: str) -> float:
    """Returns the seconds of a time such as 24h; a number alone is seconds.

    Args:
        text: The time.
        option: Who was given it, for the error.
    Raises: InvalidRequest: it is written otherwise.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            f"{option} {text!r} is no time; write 90s, 10m, 24h or 7d",
            field=option.lstrip("-").replace("-", "_"),
        )
    return float(found[1]) * _SECONDS[found[2] or "s"]
