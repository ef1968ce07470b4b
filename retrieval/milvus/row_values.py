"""The attributes of a row, as columns of a snapshot have them: for counts and groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nearline.contract import Scalar
from nearline.times import from_us


def attribute_values(stored: Mapping[str, Any], name: str, kind: str) -> list[Scalar]:
    """Returns the values of an attribute, of a list each element; empty: there is none.

    Args:
        stored: The field `attributes` of a row.
        name: Of the attribute.
        kind: string, int, double, bool or time.

    >>> values_of({"a": [1, 2]}, "a", "double")
    [1.0, 2.0]
    """
    value = stored.get(name)
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    if kind == "time":
        return [from_us(one) for one in values]
    return [float(one) for one in values] if kind == "double" else list(values)


def first_attribute_value(stored: Mapping[str, Any], name: str, kind: str) -> Scalar:
    """Returns the value of an attribute, of a list the first; None: there is none."""
    return next(iter(attribute_values(stored, name, kind)), None)
