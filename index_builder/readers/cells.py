"""Reads the cells of CSV files: all cells of a column together say of which kind it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeAlias

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}.*)?")
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}
_BAR = "|"

Parse: TypeAlias = Callable[[str], object]


def _time(cell: str) -> datetime:
    if not _TIME.fullmatch(cell):
        raise ValueError(cell)
    return datetime.fromisoformat(cell)


def _matching(pattern: re.Pattern[str], parse: Parse) -> Parse:
    def parse_matching(cell: str) -> object:
        if not pattern.fullmatch(cell):
            raise ValueError(cell)
        return parse(cell)

    return parse_matching


# From narrowest to widest; a number with a leading zero is a code, and stays text.
_KINDS: tuple[Parse, ...] = (
    _matching(_INTEGER, int),
    _matching(_NUMBER, float),
    _BOOLEANS.__getitem__,
    _time,
)


class ColumnKind:
    """Finds the kind of a column.

    It is the narrowest that reads every cell which is not empty: lists in JSON such as
    `["rock", "pop"]`, lists with bars such as `rock|pop`, integers, numbers, booleans, times; text
    otherwise. Lists with bars have at least one bar in the column, and next to it neither a space
    nor nothing, as a bar in a sentence has; their elements are of the narrowest kind, too.
    """

    def __init__(self) -> None:
        self._kinds = _KINDS
        self._empty = self._json = self._bars = True
        self._has_bar = False

    def add(self, cell: str) -> None:
        """Adds a cell."""
        if not cell:
            return
        self._empty = False
        self._json = self._json and _json_list(cell) is not None
        if self._bars and _BAR in cell:
            self._has_bar = True
            self._bars = all(part and part == part.strip() for part in cell.split(_BAR))
        if self._kinds:
            elements = cell.split(_BAR) if self._bars else [cell]
            self._kinds = tuple(
                kind for kind in self._kinds if all(_reads(kind, one) for one in elements)
            )

    def parser(self) -> Parse:
        """Returns what parses every cell that is not empty."""
        if self._empty:
            return str
        if self._json:
            return json.loads
        element = self._kinds[0] if self._kinds else str
        return partial(_split, element) if self._bars and self._has_bar else element


def read_list(cell: str) -> list[object]:
    """Returns the elements of a cell that is declared to be a list: JSON, or texts between bars."""
    found = _json_list(cell)
    if found is not None:
        return found
    return [part.strip() for part in cell.split(_BAR) if part.strip()]


def _split(element: Parse, cell: str) -> list[object]:
    return [element(part) for part in cell.split(_BAR)]


def _json_list(cell: str) -> list[object] | None:
    """Returns the elements of a JSON list of texts, numbers and booleans; None for other cells."""
    if not cell.startswith("["):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or any(isinstance(one, dict | list) for one in found):
        return None
    return found


def _reads(parse: Parse, cell: str) -> bool:
    try:
        parse(cell)
    except (ValueError, KeyError):
        return False
    return True
