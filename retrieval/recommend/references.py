"""Puts attributes of the user and the request in place of the references in a policy's filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearline import filters as f
from nearline.contract import Attributes

_EVERYTHING, _NOTHING = f.All(), f.Any()
_NUMBERS = {"int", "double"}


def bind(
    condition: f.Filter, user: Attributes, context: Attributes, kinds: Mapping[str, str]
) -> f.Filter | None:
    """Returns a filter with values in place of references; None if it then matches everything.

    A condition that refers to an unknown attribute, or to one of another kind than the attribute of
    the items, leaves no item out: it counts as true, and below a NOT as false.

    Args:
        user, context, kinds: Attributes of user and request, and kinds of those of items.
    """
    known = {f"$user.{name}": value for name, value in user.items()}
    known |= {f"$request.{name}": value for name, value in context.items()}

    def value_of(field: str, reference: f.Reference) -> Any:
        kind = f.kind_of(known.get(reference))
        fits = {kind, kinds.get(field, kind)}
        return known.get(reference) if len(fits) == 1 or fits == _NUMBERS else None

    def bound(one: f.Filter, unknown: f.Filter) -> f.Filter:
        match one:
            case f.All(parts):
                several = [bound(part, unknown) for part in parts]
                return f.All(*(part for part in several if part != _EVERYTHING))
            case f.Any(parts):
                several = [bound(part, unknown) for part in parts]
                return _EVERYTHING if _EVERYTHING in several else f.Any(*several)
            case f.Not(part):
                inner = bound(part, _NOTHING if unknown == _EVERYTHING else _EVERYTHING)
                return _EVERYTHING if inner == _NOTHING else f.Not(inner)
            case f.Equals() | f.Range():
                values = {
                    name: value_of(one.field, value)
                    for name in ("value", *f.BOUNDS)
                    if isinstance(value := getattr(one, name, None), f.Reference)
                }
                return unknown if None in values.values() else replace(one, **values)
        return one

    result = bound(condition, _EVERYTHING)
    return None if result == _EVERYTHING else result
