"""Bounds of what is converted: converting millions of entries would occupy the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Protocol, TypeVar

from nearline.errors import InvalidRequest

# Parts, states and other enum numbers in a field, which are few however often they repeat.
MAX_NUMBERS = 256

_T_co = TypeVar("_T_co", covariant=True)


class _Entries(Sized, Iterable[_T_co], Protocol[_T_co]):
    pass


def bounded(entries: _Entries[_T_co], field: str, most: int) -> Iterable[_T_co]:
    """Returns the entries of a field before any of them is converted.

    The service checks the number again, for callers in the same process.

    Args:
        entries: A repeated field or a map.
        field: Its path, for the error.
        most: Entries allowed.
    Raises: InvalidRequest: there are more.
    """
    check_count(len(entries), field, most)
    return entries


def check_count(count: int, field: str, most: int, remedy: str = "send several requests") -> None:
    """Raises InvalidRequest, naming the field, if it has more than `most` entries."""
    if count > most:
        raise InvalidRequest(
            f"{field} has {count:,} entries; at most {most:,} are allowed; {remedy}",
            field=field,
        )
