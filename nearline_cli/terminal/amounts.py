"""Options that take a large number, all of one kind: 8000, 15k, 10M, 80G, 3.35T."""

from __future__ import annotations

import re

import typer

METAVAR = "NUMBER"
_WRITTEN = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([kMGT]?)", re.ASCII)
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_LARGEST = 1e18


class Amount(float):
    """A number that is shown as people write it: Amount(2e9) is "2G"."""

    def __str__(self) -> str:
        """Returns the number in its largest unit that leaves no fraction."""
        for unit in ("T", "G", "M", "k"):
            if self and not self % _UNITS[unit]:
                return f"{self / _UNITS[unit]:g}{unit}"
        return f"{float(self):g}"


def read_amount(value: str | float) -> float:
    """Returns the number of an option's value; a default is one already.

    Raises: typer.BadParameter: it is no number, 0, or larger than 10^18.
    """
    if isinstance(value, float):
        return value
    found = _WRITTEN.fullmatch(value.strip())
    number = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < number <= _LARGEST:
        raise typer.BadParameter(
            f"{value[:200]!r} is no number above 0 and up to 10^18; write 8000, 15k, 10M or 3.35T"
        )
    return number
