"""Attribute values of any source as the few kinds that Nearline keeps."""

from __future__ import annotations

import decimal
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime

from nearline.contract import Attributes, AttributeValue, Scalar
from nearline.errors import InvalidRequest

_INT64 = range(-(1 << 63), 1 << 63)
_TIME_KEY = "$time"


def clean(raw: Mapping[str, object]) -> Attributes:
    """Brings attributes to kinds that Nearline keeps.

    Text, numbers, truth values, times and lists of them stay as they are; an empty value (null,
    NaN, an empty object) is left out. An object is flattened: {"a": {"b": 1}} -> {"a.b": 1}. Dates
    and times without a zone are taken as UTC; decimals become doubles; a list that holds lists or
    objects becomes its JSON text.
    Raises: InvalidRequest: a value of another kind, an infinite number, or a whole number beyond
        64 bits; names the attribute.
    """
    cleaned: dict[str, AttributeValue] = {}
    for name, value in raw.items():
        for flat_name, flat in _flatten(name, value):
            kept = _clean_value(flat_name, flat)
            if kept is not None:
                cleaned[flat_name] = kept
    return cleaned


def encode(attributes: Attributes) -> str:
    """Writes clean attributes as the snapshot keeps them: JSON, a time as {"$time": ISO 8601}."""
    return json.dumps(attributes, ensure_ascii=False, default=_encode_time)


def _flatten(name: str, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flatten(f"{name}.{key}", inner)


def _clean_value(name: str, value: object) -> AttributeValue:
    if isinstance(value, list | tuple):
        if any(isinstance(element, list | tuple | Mapping) for element in value):
            return json.dumps(value, ensure_ascii=False, default=str)
        scalars = [_clean_scalar(name, element) for element in value]
        return [scalar for scalar in scalars if scalar is not None]
    return _clean_scalar(name, value)


def _clean_scalar(name: str, value: object) -> Scalar:
    match value:
        case None | bool() | str():
            return value
        case int():
            if value in _INT64:
                return value
            raise InvalidRequest(f"attribute {name!r} is {value}, which needs more than 64 bits")
        case float() | decimal.Decimal():
            number = float(value)
            if math.isinf(number):
                raise InvalidRequest(f"attribute {name!r} is {value}, which is not finite")
            return None if math.isnan(number) else number
        case datetime():
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        case date():
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise InvalidRequest(
        f"attribute {name!r} is of type {type(value).__name__}; text, numbers, truth values, times "
        "and lists of them are kept: leave it out with --attribute-columns"
    )


def _encode_time(value: object) -> object:
    assert isinstance(value, datetime)
    return {_TIME_KEY: value.isoformat()}
