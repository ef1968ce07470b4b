"""Validation of filters, independently of the attributes of any collection."""

from __future__ import annotations

import math
from datetime import datetime

from nearline.errors import InvalidRequest
from nearline.filters.conditions import (
    BOUNDS,
    All,
    Any,
    Equals,
    Exists,
    Filter,
    FilterValue,
    In,
    Not,
    Phrase,
    Range,
    Reference,
    Words,
)

MAX_DEPTH = 16
MAX_PARTS = 256
# Limits of a whole filter: operators and conditions, and values of all `In` together.
MAX_CONDITIONS = 1_024
MAX_VALUES = 65_536
# Of a condition on texts: its characters, and of `Words` its different words.
MAX_TEXT_CHARACTERS = 1_024
MAX_WORDS = 64
_INT64 = range(-(1 << 63), 1 << 63)


def check_filter(condition: Filter, path: str = "options.filter") -> None:
    """Validates a filter independently of the attributes of any collection.

    Args:
        condition: The filter.
        path: Path of the filter in the request.
    Raises: InvalidRequest: more than 16 levels, more than 256 parts of one operator, more than
        1,024 operators and conditions or 65,536 values in all, no values, values or bounds of
        several kinds, no bound, a bound that is neither a number nor a time, an unsupported type of
        value, or a text that is empty or too long; names the path: options.filter.all[1].range.
    """
    _check(condition, path, MAX_DEPTH, FilterSize(path))


class FilterSize:
    """Counts the conditions and values of a filter.

    Args:
        path: Path of the filter in the request.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._conditions = 0
        self._values = 0

    def add(self, conditions: int, values: int = 0) -> None:
        """Counts operators and conditions, and values.

        Raises: InvalidRequest: there are now too many.
        """
        self._conditions += conditions
        self._values += values
        if self._conditions > MAX_CONDITIONS:
            raise _refused(
                self._path,
                f"has more than {MAX_CONDITIONS:,} operators and conditions; use in for several "
                "values of one attribute, or split the request",
            )
        if self._values > MAX_VALUES:
            raise _refused(
                self._path,
                f"has {self._values:,} values in all, {MAX_VALUES:,} are allowed; split the "
                "request",
            )


def kind_of(value: object) -> str:
    """Returns the kind of a value: string, int, double, bool or time; else the name of its type."""
    if isinstance(value, bool):  # Before int: a bool is an int in Python.
        return "bool"
    for kind, name in ((str, "string"), (int, "int"), (float, "double"), (datetime, "time")):
        if isinstance(value, kind):
            return name
    return type(value).__name__


def _check(condition: Filter, path: str, depth: int, size: FilterSize) -> None:
    size.add(1)
    if depth == 0:
        raise _refused(path, f"is nested more than {MAX_DEPTH} deep; write it flatter")
    match condition:
        case All(parts) | Any(parts):
            inner = f"{path}.{type(condition).__name__.lower()}"
            if len(parts) > MAX_PARTS:
                raise _refused(inner, f"has {len(parts)} parts, {MAX_PARTS} are allowed; use in")
            for number, part in enumerate(parts):
                _check(part, f"{inner}[{number}]", depth - 1, size)
        case Not(part):
            _check(part, f"{path}.not", depth - 1, size)
        case Equals(field, value):
            _check_field(field, f"{path}.equals")
            _check_value(value, f"{path}.equals.value")
        case In(field, values):
            _check_field(field, f"{path}.in")
            if isinstance(values, str):
                # It would be read as single letters and match nothing.
                raise _refused(f"{path}.in", f"has a string for values; write ({values!r},)")
            if not 1 <= len(values) <= MAX_VALUES:
                raise _refused(
                    f"{path}.in", f"has {len(values)} values; 1..{MAX_VALUES} are allowed"
                )
            size.add(0, len(values))
            if not _pass_quick_check(values):
                for number, value in enumerate(values):
                    _check_value(value, f"{path}.in.values[{number}]")
                _check_one_kind(values, f"{path}.in")
        case Range(field):
            _check_field(field, f"{path}.range")
            _check_bounds(condition, f"{path}.range")
        case Exists(field):
            _check_field(field, f"{path}.exists")
        case Words(text, share):
            _check_text(text, f"{path}.words.text")
            if not 0 < share <= 1:
                raise _refused(
                    f"{path}.words.share", f"is {share}; above 0 and at most 1 is allowed"
                )
        case Phrase(text):
            _check_text(text, f"{path}.phrase.text")
        case _:
            raise _refused(
                path, f"is of type {type(condition).__name__}; use the records of nearline.filters"
            )


def _pass_quick_check(values: tuple[FilterValue, ...]) -> bool:
    """Returns whether a quick check accepts all values, as it does for almost every long list."""
    types = set(map(type, values))
    if types == {int}:
        return min(values) in _INT64 and max(values) in _INT64
    if types == {float}:
        return all(map(math.isfinite, values))  # type: ignore[arg-type]
    return types == {str} and "".join(values).isascii()  # type: ignore[arg-type]


def _check_bounds(condition: Range, path: str) -> None:
    all_bounds = {name: getattr(condition, name) for name in BOUNDS}
    bounds = {name: value for name, value in all_bounds.items() if value is not None}
    if not bounds:
        raise _refused(path, "has no bound; set gte, gt, lte or lt")
    for name, value in bounds.items():
        _check_value(value, f"{path}.{name}")
        if isinstance(value, str | bool) and not isinstance(value, Reference):
            raise _refused(
                f"{path}.{name}",
                f"is a {kind_of(value)}; ranges need numbers or times (write times without "
                "quotes; `nearline build --attribute NAME:time` turns strings into times)",
            )
    _check_one_kind(tuple(bounds.values()), path)


def _check_one_kind(values: tuple[FilterValue, ...], path: str) -> None:
    kinds = {kind_of(value) for value in values}
    # Integers and doubles are one kind here: 1 equals 1.0.
    if len(kinds) > 1 and kinds != {"int", "double"}:
        raise _refused(path, f"mixes values of kind {' and '.join(sorted(kinds))}; use one kind")


def _check_field(field: str, path: str) -> None:
    if not isinstance(field, str) or not field:
        raise _refused(f"{path}.field", "is empty; name an attribute")


def _check_text(text: str, path: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise _refused(path, "is empty; name words")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise _refused(
            path, f"has {len(text):,} characters, {MAX_TEXT_CHARACTERS:,} are allowed; shorten it"
        )
    _check_value(text, path)


def _check_value(value: FilterValue, path: str) -> None:
    match value:
        case bool():
            pass
        case int() if value not in _INT64:
            raise _refused(
                path, f"is an integer of {value.bit_length():,} bits; -2^63..2^63-1 is allowed"
            )
        case float() if not math.isfinite(value):
            raise _refused(path, f"is {value}; a finite number is needed")
        case datetime() if value.tzinfo is None:
            raise _refused(path, f"is {value}, a time without a zone; add one, for example UTC")
        case str():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise _refused(
                    path,
                    f"is not valid Unicode at character {error.start}; decode the source with its "
                    "encoding",
                ) from error
        case int() | float() | datetime():
            pass
        case _:
            raise _refused(
                path,
                f"is of type {type(value).__name__}; use str, int, float, bool or an aware "
                "datetime, or exists to test for a value",
            )


def _refused(path: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {problem}", field=path)
