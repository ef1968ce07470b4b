"""The conditions of filters, and their test on the attributes of one item."""

from __future__ import annotations

import operator
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from nearline.errors import Unsupported

BOUNDS = ("gte", "gt", "lte", "lt")
_COMPARE = {"gte": operator.ge, "gt": operator.gt, "lte": operator.le, "lt": operator.lt}


class Reference(str):
    """A value that each request has its own of: $user.NAME or $request.NAME, in a policy alone."""


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


@dataclass(frozen=True, slots=True)
class Words:
    """True when title, text or a searchable attribute has the words, in any order.

    Endings, case and accents do not matter, and stop words are ignored; of a text of stop words
    alone, the title must have them. At most 64 different words.

    share: Share of the words that an item needs, above 0 and at most 1; the number is rounded down,
    but one is needed at least. similar: Whether words that resemble a misspelt one count, as they
    do in a search.
    """

    text: str
    share: float = 1.0
    similar: bool = False


@dataclass(frozen=True, slots=True)
class Phrase:
    """True when the title or the text has the words as they are written, one after another.

    Case, accents and punctuation do not matter. Shards read the texts of the items that have all
    words, and refuse a phrase if those are too many.
    """

    text: str


Filter: TypeAlias = All | Any | Not | Equals | In | Range | Exists | Words | Phrase
# On a single attribute, and on title and text.
AttributeCondition: TypeAlias = Equals | In | Range | Exists
TextCondition: TypeAlias = Words | Phrase


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """Returns a filter that matches what both match; None matches everything."""
    if first is None or second is None:
        return second if first is None else first
    if first == second or (type(first) is All and second in first.parts):
        return first
    return All(first, second)


def admits(condition: Filter, attributes: Mapping[str, object]) -> bool:
    """Returns whether an item with these attributes matches a filter; shards evaluate columns
    instead.

    A value that the condition cannot compare does not match.

    Raises: Unsupported: the filter has a condition on texts.
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
        case Words() | Phrase():
            raise Unsupported(
                f"{type(condition).__name__} is a condition on texts, which only a search can "
                "test; leave it out of this filter",
                field="filter",
            )


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


def conditions(condition: Filter) -> Iterator[AttributeCondition]:
    """Yields the conditions on single attributes, from left to right."""
    for one in _leaves(condition):
        if not isinstance(one, Words | Phrase):
            yield one


def text_conditions(condition: Filter) -> Iterator[TextCondition]:
    """Yields the conditions on title and text, from left to right."""
    for one in _leaves(condition):
        if isinstance(one, Words | Phrase):
            yield one


def _leaves(condition: Filter) -> Iterator[AttributeCondition | TextCondition]:
    match condition:
        case All(parts) | Any(parts):
            for part in parts:
                yield from _leaves(part)
        case Not(part):
            yield from _leaves(part)
        case _:
            yield condition
