"""Validation of filters against the attributes of a snapshot: names and kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from nearline import filters as f
from nearline.errors import InvalidRequest
from nearline.filters import Filter, FilterValue, kind_of
from retrieval.protocols.request_validation import closest_name

_NUMBERS = ("int", "double")
_NAMES_SHOWN = 20


def check_kinds(filter: Filter, kinds: Mapping[str, str]) -> None:
    """Checks that a filter names existing attributes and values of their kind.

    Args:
        filter: The filter.
        kinds: Attribute kinds by name, as named by `kind_of`.
    Raises: InvalidRequest: names the most similar and all other attributes, or both kinds; or the
        filter is invalid in itself.
    """
    f.check_filter(filter)
    for condition in f.conditions(filter):
        kind = kinds.get(condition.field)
        if kind is None:
            raise unknown_attribute_error(condition.field, list(kinds), "options.filter")
        # One value of each type is enough: `check_filter` has checked every value.
        for value in {type(value): value for value in _values_of(condition)}.values():
            _check_kind(condition.field, kind, value)
        if isinstance(condition, f.Range) and kind not in (*_NUMBERS, "time"):
            raise InvalidRequest(
                f"attribute {condition.field!r} is of kind {kind}; ranges need numbers or times",
                field="options.filter",
            )


def unknown_attribute_error(name: str, names: Sequence[str], request_field: str) -> InvalidRequest:
    """Returns the error for an attribute that does not exist.

    Args:
        name: The unknown name.
        names: The existing attributes.
        request_field: The field of the request that contains the name.
    """
    if not names:
        return InvalidRequest(
            f"there is no attribute {name!r}: the snapshot has no attributes; build it from "
            "documents with attributes",
            field=request_field,
        )
    near = closest_name(name, names, 0.5)
    shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return InvalidRequest(
        f"there is no attribute {name!r}{f'; did you mean {near!r}?' if near else '.'} "
        f"Attributes: {shown}{more}",
        field=request_field,
    )


def _values_of(condition: f.AttributeCondition) -> Sequence[FilterValue]:
    match condition:
        case f.Equals(_, value):
            return (value,)
        case f.In(_, values):
            return values
        case f.Range():
            bounds = (getattr(condition, name) for name in f.BOUNDS)
            return [bound for bound in bounds if bound is not None]
        case f.Exists():
            return ()


def _check_kind(field: str, kind: str, value: FilterValue) -> None:
    found = kind_of(value)
    if found == kind or (found in _NUMBERS and kind in _NUMBERS):
        return
    shown = value.isoformat() if isinstance(value, datetime) else repr(value)
    remedy = f"use {_with_article(kind)}"
    if kind == "string":
        remedy += f", or build with --attribute {field}:{found}"
    raise InvalidRequest(
        f"attribute {field!r} is of kind {kind}, but the filter has "
        f"{_with_article(found)} ({shown}); {remedy}",
        field="options.filter",
    )


def _with_article(kind: str) -> str:
    return f"{'an' if kind == 'int' else 'a'} {kind}"
