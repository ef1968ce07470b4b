"""Comparison of ints with double columns and vice versa, by value: 2 == 2.0, no rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from nearline.filters import BOUNDS, FilterValue, Range

_INT64 = range(-(1 << 63), 1 << 63)
_COMPARISONS = {
    "gte": "greater_equal",
    "gt": "greater",
    "lte": "less_equal",
    "lt": "less",
}


class Bound(NamedTuple):
    """One side of a range. comparison: Name in pyarrow.compute. value: In the column's kind."""

    comparison: str
    value: FilterValue


def equal_values(values: Sequence[FilterValue], kind: str) -> list[FilterValue]:
    """Returns the values that a column of this kind can contain: no int equals 2.5.

    >>> equal_values([2.0, 2.5], "int")
    [2]
    """
    if kind == "int":
        return [int(v) for v in values if v == int(v) and int(v) in _INT64]  # type: ignore[arg-type]
    if kind == "double":
        # Plus zero: Arrow's hash tables distinguish -0.0 from 0.0; columns contain only 0.0.
        return [float(v) + 0.0 for v in values if float(v) == v]  # type: ignore[arg-type]
    return list(values)


def bounds_of(condition: Range, kind: str) -> list[Bound] | None:
    """Returns the bounds of a range in the kind of a column; None if no value can meet them.

    >>> bounds_of(Range("a", gte=2.5), "int")
    [Bound(comparison='greater_equal', value=3)]
    """
    bounds = []
    for name in BOUNDS:
        value = getattr(condition, name)
        if value is None:
            continue
        if kind == "int" and isinstance(value, float):
            whole = math.ceil(value) if name in ("gte", "lt") else math.floor(value)
            if whole not in _INT64:
                # The bound is outside the range of int64: either every value meets the bound, or no
                # value does.
                if (whole > 0) == (name in ("lte", "lt")):
                    continue
                return None
            bounds.append(Bound(_COMPARISONS[name], whole))
        elif kind == "double" and isinstance(value, int):
            bounds.append(_double(name, value))
        else:
            bounds.append(Bound(_COMPARISONS[name], value))
    return bounds


def _double(name: str, value: int) -> Bound:
    """Returns an int bound as a double; adjusts the comparison if rounding moved the bound."""
    rounded = float(value)
    if rounded < value:
        name = {"gte": "gt", "lt": "lte"}.get(name, name)
    elif rounded > value:
        name = {"gt": "gte", "lte": "lt"}.get(name, name)
    return Bound(_COMPARISONS[name], rounded)
