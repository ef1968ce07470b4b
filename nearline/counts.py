"""Counts: of what is held, by whose it is, and in texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

_Counted = TypeVar("_Counted", bound=Hashable)


def add_to(counts: Counter[_Counted], whose: _Counted, number: int) -> None:
    """Adds a number, which may be negative, to a count; one of 0 is forgotten."""
    counts[whose] += number
    if not counts[whose]:
        del counts[whose]


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun: "1 item", "2,345 items".

    Args:
        number: The number.
        noun: The noun of one.
        plural: The noun of several. Optional; by default with an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
