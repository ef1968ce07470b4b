"""Filters over attributes of items: `All(Equals("kind", "class"), Range("year", gte=2000))`.

Filters are immutable and hashable, so they can be cache keys; the keys of True, 1 and 1.0 differ. A
condition on a list is true when any element makes it true; a range is true when one element lies
within all its bounds. An item without the attribute (or with null) fails every condition except
`Not`, which is true whenever its part is false. Numbers compare by value: 2 equals 2.0.

To add an operator, follow it from here to the shards; mypy points to most of these places:

- the record in this module, in `Filter`, `admits`, `conditions` and `_check`;
- `nearline/filter_text.py` (the language) and `proto/nearline/v1/types.proto` with
  `nearline/wire/filters.py` (the wire);
- `retrieval/index/filtering/validation.py` (types of values) and `attribute_table.py` (the test of
  a column), and `retrieval/milvus/filters.py` (the same for Milvus);
- `retrieval/monitoring/filter_shape.py` (a label of metrics) and `docs/guides/filters.md`.
"""

from __future__ import annotations

import math
import operator
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from nearline.errors import InvalidRequest

MAX_DEPTH = 16
MAX_PARTS = 256
# Limits of a whole filter: operators and conditions, and values of all `In` together.
MAX_CONDITIONS = 1_024
MAX_VALUES = 65_536
BOUNDS = ("gte", "gt", "lte", "lt")
_COMPARE = {"gte": operator.ge, "gt": operator.gt, "lte": operator.le, "lt": operator.lt}
_INT64 = range(-(1 << 63), 1 << 63)

FilterValue: TypeAlias = str | int | float | bool | datetime


class _Typed:
    """Equality that tells True and 1 apart, which do not match the same attributes."""

    __slots__ = ()

    def _typed(self) -> tuple[object, ...]:
        """Returns the fields of the record, and the types of its values."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._typed() == other._typed()

    def __hash__(self) -> int:
        return hash(self._typed())


@dataclass(frozen=True, slots=True, init=False)
class All:
    """True when every part is true; true without parts."""

    parts: tuple[Filter, ...]

    def __init__(self, *parts: Filter) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True, init=False)
class Any:
    """True when at least one part is true; false without parts."""

    parts: tuple[Filter, ...]

    def __init__(self, *parts: Filter) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True)
class Not:
    """True when the part is false."""

    part: Filter


@dataclass(frozen=True, slots=True, eq=False)
class Equals(_Typed):
    """True when the attribute equals the value; times are aware datetimes."""

    field: str
    value: FilterValue

    def _typed(self) -> tuple[object, ...]:
        return self.field, self.value, type(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class In(_Typed):
    """True when the attribute equals one of 1..65,536 values of one kind."""

    field: str
    values: tuple[FilterValue, ...]

    def _typed(self) -> tuple[object, ...]:
        # All values are of one kind, so that their order does not matter.
        return self.field, self.values, frozenset(map(type, self.values))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bounds(_Typed):
    gte: FilterValue | None = None
    gt: FilterValue | None = None
    lte: FilterValue | None = None
    lt: FilterValue | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Range(_Bounds):
    """True when the attribute, a number or a time, lies between the bounds; at least one is set."""

    field: str

    def _typed(self) -> tuple[object, ...]:
        bounds = self.gte, self.gt, self.lte, self.lt
        return self.field, *bounds, *map(type, bounds)


@dataclass(frozen=True, slots=True)
class Exists:
    """True when the attribute is present and not null."""

    field: str


Filter: TypeAlias = All | Any | Not | Equals | In | Range | Exists


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """Returns a filter that matches what both match; None matches everything."""
    if first is None or second is None:
        return second if first is None else first
    if first == second or (type(first) is All and second in first.parts):
        return first
    return All(first, second)


def check_filter(condition: Filter, path: str = "options.filter") -> None:
    """Validates a filter independently of the attributes of any collection.

    Args:
        condition: The filter.
        path: Path of the filter in the request.
    Raises: InvalidRequest: more than 16 levels, more than 256 parts of one operator, more than
        1,024 operators and conditions or 65,536 values in all, no values, values or bounds of
        several kinds, no bound, a bound that is neither a number nor a time, or an unsupported type
        of value; names the path: options.filter.all[1].range.
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


def admits(condition: Filter, attributes: Mapping[str, object]) -> bool:
    """Returns whether an item with these attributes matches a filter; shards evaluate columns
    instead.

    A value that the condition cannot compare does not match.
    """
    match condition:
        case All(parts):
            return all(admits(part, attributes) for part in parts)
        case Any(parts):
            return any(admits(part, attributes) for part in parts)
        case Not(part):
            return not admits(part, attributes)
        case Exists(field):
            return attributes.get(field) is not None
        case Equals() | In() | Range():
            value = attributes.get(condition.field)
            elements = value if isinstance(value, list | tuple) else [value]
            return any(_meets(one, condition) for one in elements if one is not None)


def _meets(value: typing.Any, condition: Equals | In | Range) -> bool:
    match condition:
        case Equals(_, wanted):
            return bool(value == wanted)
        case In(_, several):
            return value in several
        case Range():
            bounds = ((name, getattr(condition, name)) for name in BOUNDS)
            try:
                return all(
                    _COMPARE[name](value, bound) for name, bound in bounds if bound is not None
                )
            except TypeError:
                return False


def kind_of(value: object) -> str:
    """Returns the kind of a value: string, int, double, bool or time; else the name of its type."""
    if isinstance(value, bool):  # Before int: a bool is an int in Python.
        return "bool"
    for kind, name in ((str, "string"), (int, "int"), (float, "double"), (datetime, "time")):
        if isinstance(value, kind):
            return name
    return type(value).__name__


def conditions(condition: Filter) -> Iterator[Equals | In | Range | Exists]:
    """Yields the conditions on single attributes, from left to right."""
    match condition:
        case All(parts) | Any(parts):
            for part in parts:
                yield from conditions(part)
        case Not(part):
            yield from conditions(part)
        case _:
            yield condition


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
        if isinstance(value, str | bool):
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
