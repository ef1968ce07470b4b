"""Counts in texts: a number with its noun."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun: "1 item", "2,345 items".

    Args:
        number: The number.
        noun: The noun of one.
        plural: The noun of several. Optional; by default with an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
