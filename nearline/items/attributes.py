"""Conversion of attribute values from any source to the kinds that Nearline stores."""

from __future__ import annotations

import decimal
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime

from nearline.contract import Attributes, AttributeValue, Scalar
from nearline.errors import InvalidRequest
from nearline.times import in_utc

_INT64 = range(-(1 << 63), 1 << 63)
_TIME_KEY = "$time"
KINDS = ("string", "int", "double", "bool", "time")
# After the kind of the values, where items have lists of them: string[].
LIST = "[]"
_NONE: Mapping[str, str] = {}
MAX_DEPTH = 64
_SHOWN_CHARACTERS = 100


def clean(raw: Mapping[str, object], declared: Mapping[str, str] = _NONE) -> Attributes:
    """Converts attributes to the kinds that Nearline stores.

    Args:
        raw: Values by name.
        declared: Kinds (of KINDS, with LIST or without) by flattened name. Values are read as the
            declared kind; an empty text is omitted unless the kind is string.

    Texts, numbers, booleans, times and lists of them are kept; empty values (null, NaN, an empty
    object) are omitted. An object is flattened: {"a": {"b": 1}} -> {"a.b": 1}. Dates and times
    without a time zone are read as UTC; decimals become doubles; a list of lists or objects becomes
    its JSON text.
    Raises: InvalidRequest: a value of an unknown kind or of a kind other than the declared one, an
        infinite number, or an integer beyond 64 bits; names the attribute.
    """
    cleaned: dict[str, AttributeValue] = {}
    for name, value in raw.items():
        for flat_name, flat in flatten(name, value):
            if flat_name == _TIME_KEY:
                raise InvalidRequest(f"attribute {_TIME_KEY!r} has a reserved name; rename it")
            cleaned_value = _clean_value(flat_name, flat)
            if flat_name in declared:
                kind = declared[flat_name].removesuffix(LIST)
                cleaned_value = _as_declared(flat_name, cleaned_value, kind)
            if cleaned_value is not None:
                cleaned[flat_name] = cleaned_value
    return cleaned


def check_numbers(raw: Mapping[str, object]) -> None:
    """Checks attributes of a caller who can be told; `clean` omits NaN, as files have it.

    Raises: InvalidRequest: a number is NaN or infinite; names its place.
    """
    for name, value in raw.items():
        for flat_name, flat in flatten(name, value):
            numbered = (
                [(f"[{at}]", one) for at, one in enumerate(flat)]
                if isinstance(flat, list | tuple)
                else [("", flat)]
            )
            for place, one in numbered:
                if isinstance(one, float) and not math.isfinite(one):
                    path = f"attributes.{flat_name}{place}"
                    raise InvalidRequest(
                        f"{path} is {one}, which is not finite; send a number, or leave it out",
                        field=path,
                    )


def encode(attributes: Attributes) -> str:
    """Encodes clean attributes as stored in a snapshot: JSON, a time as {"$time": ISO 8601}."""
    return json.dumps(attributes, ensure_ascii=False, default=_encode_time)


def decode(text: str) -> Attributes:
    """Decodes the output of `encode`."""
    attributes: Attributes = json.loads(text, object_hook=_decode_time)
    return attributes


def flatten(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Yields an attribute, or the values of an object under names joined by dots.

    Raises: InvalidRequest: objects are nested more than 64 deep.
    """
    return _flatten(name, value, MAX_DEPTH)


def _flatten(name: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    if not depth:
        raise InvalidRequest(
            f"attribute {_shown(name)} has objects nested more than {MAX_DEPTH} deep; flatten them"
        )
    for key, inner in value.items():
        yield from _flatten(f"{name}.{key}", inner, depth - 1)


def _clean_value(name: str, value: object) -> AttributeValue:
    if isinstance(value, list | tuple):
        if any(isinstance(element, list | tuple | Mapping) for element in value):
            try:
                return json.dumps(value, ensure_ascii=False, default=str)
            except RecursionError as error:
                raise InvalidRequest(
                    f"attribute {_shown(name)} has lists nested too deeply; flatten them"
                ) from error
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
            raise InvalidRequest(
                f"attribute {_shown(name)} has {value.bit_length()} bits, and more than 64 bits "
                "are not stored; send it as text"
            )
        case float() | decimal.Decimal():
            number = float(value)
            if math.isinf(number):
                raise InvalidRequest(f"attribute {name!r} is {value}, which is not finite")
            return None if math.isnan(number) else number
        case date():
            return in_utc(value)
    raise InvalidRequest(
        f"attribute {name!r} is of type {type(value).__name__}; use text, numbers, booleans, "
        "times or lists of them, or exclude the attribute with --attribute-columns"
    )


def _encode_time(value: object) -> object:
    assert isinstance(value, datetime)
    return {_TIME_KEY: value.isoformat()}


def _decode_time(value: dict[str, object]) -> object:
    # Objects were flattened, so any object inside the outermost one is a time.
    text = value.get(_TIME_KEY)
    return datetime.fromisoformat(text) if len(value) == 1 and isinstance(text, str) else value


def _as_declared(name: str, value: AttributeValue, kind: str) -> AttributeValue:
    if isinstance(value, list):
        read = [_scalar_as_declared(name, element, kind) for element in value]
        return [element for element in read if element is not None]
    assert not isinstance(value, Sequence) or isinstance(value, str)
    return _scalar_as_declared(name, value, kind)


def _scalar_as_declared(name: str, value: Scalar, kind: str) -> Scalar:
    if value is None or (value == "" and kind != "string"):
        return None
    try:
        return _clean_scalar(name, _READERS[kind](value))
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest(
            f"attribute {name!r} is {_shown(value)}, which is not of the declared kind {kind}; "
            "correct it, or declare another kind"
        ) from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _as_string(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
    return str(value)


def _as_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _as_double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    return float(value)


def _as_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise TypeError(value)
    return {"true": True, "false": False}[value.lower()]


def _as_time(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise TypeError(value)
    return datetime.fromisoformat(value)


_READERS: Mapping[str, Callable[[object], object]] = {
    "string": _as_string,
    "int": _as_int,
    "double": _as_double,
    "bool": _as_bool,
    "time": _as_time,
}
