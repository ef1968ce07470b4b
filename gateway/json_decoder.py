"""Turns JSON into messages; see `gateway.json_format`."""

from __future__ import annotations

import base64
import difflib
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from gateway.conversion import check_wanted
from gateway.json_format import TIME_KEY, enum_words, map_entry
from nearline import vectors, wire
from nearline.errors import InvalidRequest
from nearline.filter_text import filter_from_json, parse_filter
from nearline.times import in_utc
from nearline.wire.values import timestamp

_Message = TypeVar("_Message", bound=Message)
# Sets a field of a message to a JSON value. Arguments: message, value, path.
_Set: TypeAlias = Callable[[Any, Any, str], None]
# Converts a JSON value. Arguments: value, path.
_Convert: TypeAlias = Callable[[Any, str], Any]
INTS: Final = {
    FieldDescriptor.CPPTYPE_INT32: range(-(1 << 31), 1 << 31),
    FieldDescriptor.CPPTYPE_UINT32: range(1 << 32),
    FieldDescriptor.CPPTYPE_INT64: range(-(1 << 63), 1 << 63),
    FieldDescriptor.CPPTYPE_UINT64: range(1 << 64),
}


def decode(kind: type[_Message], value: object, path: str = "") -> _Message:
    """Returns the message of a JSON object.

    Raises: InvalidRequest: a field is unknown, or its value is of another type; names the path.
    """
    message = kind()
    _decode_into(message, value, path)
    return message


def set_field(message: Message, name: str, value: object) -> None:
    """Sets a field to a JSON value, or to a text that stands for one, as in a URL.

    Raises: InvalidRequest: there is no such field, or the value is of another type.
    """
    setters = _setters(message.DESCRIPTOR)
    if name not in setters:
        raise _unknown(name, name, setters)
    setters[name](message, value, name)


def _decode_into(message: Message, value: object, path: str) -> None:
    special = _SPECIAL_DECODERS.get(message.DESCRIPTOR.full_name)
    if special is not None:
        message.MergeFrom(special(value, path))
        message.SetInParent()
        return
    if not isinstance(value, dict):
        raise _wrong(path, value, "an object")
    setters = _setters(message.DESCRIPTOR)
    # Presence, also of an empty object.
    message.SetInParent()
    for name, one in value.items():
        where = f"{path}.{name}" if path else name
        if name not in setters:
            raise _unknown(name, where, setters)
        if one is not None or name in _nullable(message.DESCRIPTOR):
            setters[name](message, one, where)


@cache
def _nullable(descriptor: Descriptor) -> frozenset[str]:
    """Returns the fields that are attribute values, of which null is one; elsewhere it is unset."""
    return frozenset(
        field.name
        for field in descriptor.fields
        if field.message_type is not None and field.message_type.full_name == "nearline.v1.Value"
    )


@cache
def _setters(descriptor: Descriptor) -> Mapping[str, _Set]:
    return {field.name: _setter(field) for field in descriptor.fields}


def _setter(field: FieldDescriptor) -> _Set:
    name = field.name
    if (entry := map_entry(field)) is not None:
        return _map_setter(field.name, *entry)
    if field.is_repeated:
        return _list_setter(field)
    oneof = field.containing_oneof
    alternatives = (
        [] if oneof is None or len(oneof.fields) < 2 else [one.name for one in oneof.fields]
    )
    if field.message_type is not None:

        def set_message(message: Any, value: Any, path: str) -> None:
            _check_alone(message, oneof, alternatives, name, path)
            _decode_into(getattr(message, name), value, path)

        return set_message
    convert = _converter(field)

    def set_scalar(message: Any, value: Any, path: str) -> None:
        _check_alone(message, oneof, alternatives, name, path)
        setattr(message, name, convert(value, path))

    return set_scalar


def _check_alone(
    message: Any, oneof: Any, alternatives: Sequence[str], name: str, path: str
) -> None:
    """Raises InvalidRequest if another field of a oneof is set."""
    if alternatives and (other := message.WhichOneof(oneof.name)) not in (None, name):
        beside = path.removesuffix(name) + other
        raise InvalidRequest(
            f"{path} and {beside} exclude each other; send one of {', '.join(alternatives)}",
            field=path,
        )


def _list_setter(field: FieldDescriptor) -> _Set:
    name = field.name
    if field.message_type is not None:

        def add_messages(message: Any, value: Any, path: str) -> None:
            found = getattr(message, name)
            for number, one in enumerate(_list(value, path)):
                check_wanted()
                _decode_into(found.add(), one, f"{path}[{number}]")

        return add_messages
    convert = _converter(field)

    def add_scalars(message: Any, value: Any, path: str) -> None:
        getattr(message, name).extend(
            [convert(one, f"{path}[{number}]") for number, one in enumerate(_list(value, path))]
        )

    return add_scalars


def _map_setter(name: str, key_field: FieldDescriptor, entry: FieldDescriptor) -> _Set:
    key = _converter(key_field)
    convert = None if entry.message_type is not None else _converter(entry)

    def set_entries(message: Any, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(path, value, "an object")
        found = getattr(message, name)
        for one, content in value.items():
            where = f"{path}.{one}"
            if convert is None:
                _decode_into(found[key(one, where)], content, where)
            else:
                found[key(one, where)] = convert(content, where)

    return set_entries


def _converter(field: FieldDescriptor) -> _Convert:
    if field.enum_type is not None:
        return _enum_converter(field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    if (allowed := INTS.get(field.cpp_type)) is not None:
        return lambda value, path: _int(value, path, allowed)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return _bool
        case FieldDescriptor.CPPTYPE_STRING:
            return _text
        case _:
            return _float


def _enum_converter(enum: EnumDescriptor) -> _Convert:
    words = enum_words(enum)
    # As the protos say it, and unset.
    names = {one.name: one.number for one in enum.values} | {"": 0}

    def convert(value: Any, path: str) -> int:
        number = words.get(value, names.get(value)) if isinstance(value, str) else None
        if number is None:
            raise _wrong(path, value, f"one of {', '.join(words)}")
        return number

    return convert


def _int(value: Any, path: str, allowed: range) -> int:
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and len(value) < 24:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise _wrong(path, value, f"a whole number from {allowed.start:,} to {allowed.stop - 1:,}")
    return value


def _float(value: Any, path: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _wrong(path, value, "a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(path, value, "a number")
    return float(value)


def _bool(value: Any, path: str) -> bool:
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise _wrong(path, value, "true or false")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, value, "a text")
    return value


def _bytes(value: Any, path: str) -> bytes:
    try:
        return base64.b64decode(_text(value, path), validate=True)
    except ValueError:
        raise _wrong(path, value, "base64") from None


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(path, value, "a list")
    return value


def _decode_vectors(value: Any, path: str) -> Any:
    rows = _list(value, path)
    if rows and not isinstance(rows[0], list):
        rows = [rows]
    try:
        # numpy takes truth values and texts, too. Beyond binary32 is infinite, refused below.
        if not all({*map(type, row)} <= {int, float} for row in rows):
            raise TypeError
        with np.errstate(over="ignore"):
            matrix = np.array(rows, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise _wrong(path, value, "a list of numbers, or of such lists of equal length") from None
    if matrix.ndim != 2 or not matrix.size:
        raise _wrong(path, value, "a list of numbers, or of such lists of equal length")
    if not np.isfinite(matrix).all():
        raise InvalidRequest(f"{path} has a number that is not a finite binary32", field=path)
    return vectors.pack(matrix)


def _decode_value(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        if value.keys() != {TIME_KEY}:
            raise _wrong(
                path, value, f'a plain value, or a time: {{"{TIME_KEY}": "2024-05-01T12:00:00Z"}}'
            )
        return wire.value_to_proto(_time(value[TIME_KEY], f"{path}.{TIME_KEY}"))
    if isinstance(value, list):
        return wire.value_to_proto(
            [
                _time(one[TIME_KEY], f"{path}[{number}]")
                if isinstance(one, dict) and one.keys() == {TIME_KEY}
                else one
                for number, one in enumerate(value)
            ]
        )
    return wire.value_to_proto(value)


def _time(value: Any, path: str) -> datetime:
    try:
        return in_utc(datetime.fromisoformat(value))
    except (ValueError, TypeError):
        wanted = "a time of the years 1 to 9999, such as 2024-05-01T12:00:00Z"
        raise _wrong(path, value, wanted) from None


def _decode_filter(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return wire.filter_to_proto(parse_filter(value, path))
    return wire.filter_to_proto(filter_from_json(value, path))


def _decode_duration(value: Any, path: str) -> Any:
    message = Duration()
    seconds = _float(value, path)
    if not abs(seconds) < 1e10:
        raise _wrong(path, value, "seconds")
    message.FromNanoseconds(round(seconds * 1e9))
    return message


_SPECIAL_DECODERS: Mapping[str, _Convert] = {
    "nearline.v1.Value": _decode_value,
    "nearline.v1.Vectors": _decode_vectors,
    "nearline.v1.Filter": _decode_filter,
    "google.protobuf.Timestamp": lambda value, path: timestamp(_time(value, path)),
    "google.protobuf.Duration": _decode_duration,
}


_REPR: Final = reprlib.Repr()
# Of lists in lists, however deep they are.
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 60


def _wrong(path: str, value: object, wanted: str) -> InvalidRequest:
    shown = _REPR.repr(value)
    return InvalidRequest(f"{path or 'the body'} is {shown}; send {wanted}", field=path)


def _unknown(name: str, path: str, known: Mapping[str, object]) -> InvalidRequest:
    near = difflib.get_close_matches(name[:60], known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"
    return InvalidRequest(f"there is no field {path[:100]!r}; {hint}", field=path[:100])
