"""Options that take a duration, all of one kind: 500ms, 10s, 15m, 24h, 7d."""

from __future__ import annotations

import math

import typer

from nearline.durations import EXAMPLES, parse_duration
from nearline.errors import InvalidRequest

METAVAR = "DURATION"
# Ten years: what is longer is a slip of the keyboard.
_LONGEST_S = 3_650 * 86_400.0


def read_duration(value: str | float) -> float:
    """Returns the seconds of an option's value; a default is seconds already.

    Raises: typer.BadParameter: it is no duration, or longer than ten years.
    """
    if isinstance(value, float):
        return value
    try:
        seconds = parse_duration(value, "it")
    except InvalidRequest as error:
        raise typer.BadParameter(f"{value[:200]!r} is not a duration; write {EXAMPLES}") from error
    if seconds > _LONGEST_S:
        raise typer.BadParameter(f"{value[:200]!r} is longer than ten years; write a shorter one")
    return seconds


def read_timeout(value: str | float) -> float:
    """Returns the seconds of a time limit, which must be above 0; see `read_duration`."""
    seconds = read_duration(value)
    if seconds <= 0:
        raise typer.BadParameter(f"{value!r} is no time at all; write {EXAMPLES}")
    return seconds


def read_wait(value: str | float) -> float:
    """Returns the seconds to wait at most; infinity if the option was given without a value."""
    return math.inf if value == NO_LIMIT else read_duration(value)


# What `--wait` without a duration is read as.
NO_LIMIT = "inf"
