"""Conditions on the attributes of items: `All(Equals("kind", "class"), Range("year", gte=2000))`.

Records are immutable and hashable, so that a filter can be the key of a cache. A condition on a
list is true when any element makes it true. An item without the attribute (or with null) fails
every condition on it but `Not`, which is true whenever its part is false.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

FilterValue: TypeAlias = str | int | float | bool | datetime


@dataclass(frozen=True, slots=True, init=False)
class All:
    """True when every part is true; no parts: true."""

    parts: tuple[Filter, ...]

    def __init__(self, *parts: Filter) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True, init=False)
class Any:
    """True when at least one part is true; no parts: false."""

    parts: tuple[Filter, ...]

    def __init__(self, *parts: Filter) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, slots=True)
class Not:
    """True when the part is false."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Equals:
    """True when the attribute equals the value; times are aware datetimes."""

    field: str
    value: FilterValue


@dataclass(frozen=True, slots=True)
class In:
    """True when the attribute equals one of 1..65,536 values of one kind."""

    field: str
    values: tuple[FilterValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    gte: FilterValue | None = None
    gt: FilterValue | None = None
    lte: FilterValue | None = None
    lt: FilterValue | None = None


@dataclass(frozen=True, slots=True)
class Range(_Bounds):
    """True when the attribute, a number or a time, lies between the bounds; at least one is set."""

    field: str


@dataclass(frozen=True, slots=True)
class Exists:
    """True when the attribute is present and not null."""

    field: str


Filter: TypeAlias = All | Any | Not | Equals | In | Range | Exists
