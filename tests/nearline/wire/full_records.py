"""Records and arguments with every field set, each to another value, or with as few as possible."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import numpy as np

from nearline import contract as c
from nearline.filters import All, Any as AnyOf, Equals, Exists, In, Not, Phrase, Range, Words
from retrieval.protocols.watermark import Watermark

NONE = type(None)
_NO = dataclasses.MISSING
DIM = 3
OWN_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class FullRecords:
    """Makes values from type hints; no number or text is used twice.

    least: Leaves out what has a default, is optional or is one of several.
    """

    def __init__(self, *, least: bool = False) -> None:
        self._count = 0
        self._least = least

    def of(self, hint: Any, default: object = dataclasses.MISSING) -> Any:
        """Returns a value of a type; for an enum one that differs from the default."""
        origin, parts = typing.get_origin(hint), typing.get_args(hint)
        if self._least:
            if default not in (_NO, inspect.Parameter.empty, ...):
                return default
            if NONE in parts:
                return None
        made = self._special(hint)
        if made is not None:
            return made
        if origin in (types.UnionType, typing.Union):
            return self.of(next(one for one in parts if one is not NONE), default)
        if origin is tuple:
            if parts[-1] is Ellipsis:
                return (self.of(parts[0]), self.of(parts[0]))
            return tuple(map(self.of, parts))
        if origin in (frozenset, set, Collection):
            return frozenset(list(parts[0])[-2:])
        if origin is not None and issubclass(origin, Mapping):
            return {self.of(parts[0]): self.of(parts[1])}
        if origin is not None and issubclass(origin, Iterable):
            return [self.of(parts[0]), self.of(parts[0])]
        if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
            return self.record(hint)
        if issubclass(hint, Enum):
            return next(one for one in reversed(hint) if one is not default)
        return self._scalar(hint)

    def record(self, kind: Any) -> Any:
        """Returns a full record of a class."""
        hints = typing.get_type_hints(kind)
        own = _OWN.get(kind, {})
        if dataclasses.is_dataclass(kind):
            defaults = {
                one.name: one.default
                for one in dataclasses.fields(kind)
                if not self._least or (one.default, one.default_factory) == (_NO, _NO)
            }
        else:
            defaults = {name: kind._field_defaults.get(name) for name in kind._fields}
        return kind(
            **{
                name: own[name](self) if name in own else self.of(hints[name], default)
                for name, default in defaults.items()
            }
        )

    def number(self) -> int:
        """Returns the next number, from 1."""
        self._count += 1
        return self._count

    def vector(self) -> Any:
        """Returns a (3,) float32 vector of its own."""
        return np.full(DIM, self.number(), np.float32)

    def _scalar(self, hint: Any) -> Any:
        if hint is bool:
            return True
        if hint is type(None):
            return None
        number = self.number()
        if hint is int:
            return number
        if hint is float:
            # Exact in 32 bits and in whole microseconds.
            return number + 0.125
        if hint is str:
            return f"text {number}"
        if hint is bytes:
            return b"bytes %d" % number
        if hint is datetime:
            return OWN_TIME + timedelta(hours=number, microseconds=number)
        raise TypeError(f"no value for {hint!r}; add one here")

    def _special(self, hint: Any) -> Any:
        if hint in (c.Filter, c.Filter | None):
            return self._filter()
        if hint == c.Scalar:
            return self.of(str)
        if hint in (c.Attributes, c.Attributes | None):
            return self._attributes()
        if hint == Watermark or hint == Watermark | None:
            return Watermark("0" * 31 + "a", tuple(self.number() for _ in range(64)))
        if hint == c.Query:
            return c.Query(text=self.of(str))
        if hint in (Sequence[c.Query],):
            return [
                c.Query(text=self.of(str)),
                c.Query(vector=self.vector()),
                c.Query(item_ids=(self.of(str), self.of(str))),
            ]
        if hint == Sequence[c.IngestSource]:
            return [self.of(one) for one in (c.Item, c.SourceFile, c.SourceUrl)]
        if hint == tuple[c.Boost, ...]:
            return self._boosts()
        if typing.get_origin(hint) is np.ndarray or "ndarray" in str(hint):
            return self.vector()
        return None

    def _boosts(self) -> tuple[c.Boost, ...]:
        """Returns a boost for each way to set its value."""
        values: list[Mapping[str, Any]] = [
            {"any_of": (self.of(str), self.number())},
            {"growth": c.Growth(pivot=self.of(float))},
            {"growth": c.Growth(top=self.of(float))},
            {"decay": self.of(c.Decay)},
        ]
        return tuple(
            c.Boost(field=self.of(str), weight=self.of(float), **value) for value in values
        )

    def _filter(self) -> c.Filter:
        low, high = sorted((self.of(float), self.of(float)))
        return All(
            Equals(self.of(str), self.of(str)),
            AnyOf(In(self.of(str), (self.number(), self.number())), Exists(self.of(str))),
            Not(Range(self.of(str), gte=low, gt=low, lte=high, lt=high)),
            AnyOf(Phrase(self.of(str)), Words(self.of(str), 0.5, similar=True)),
        )

    def _attributes(self) -> c.Attributes:
        kinds: list[Any] = [self.of(one) for one in (str, int, float, bool, datetime)]
        return {self.of(str): one for one in (*kinds, kinds)}


_OWN: Mapping[Any, Mapping[str, Any]] = {
    c.Embeddings: {
        "vectors": lambda full: np.stack([full.vector(), full.vector()]),
        "tokens": lambda full: np.array([full.number(), full.number()]),
        "truncated": lambda full: np.array([True, True]),
    },
    # The servicer makes pages.
    c.SearchReply: {"next_page_token": lambda full: ""},
}


def same(one: Any, other: Any) -> bool:
    """Returns whether two values are equal: records by field, arrays and sequences by element."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return one is not None and other is not None and bool(np.array_equal(one, other))
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, field.name), getattr(other, field.name))
            for field in dataclasses.fields(one)
        )
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and not isinstance(one, str | bytes):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
