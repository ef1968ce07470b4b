"""Turns messages into JSON; see `gateway.json_format`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.json_format import TIME_KEY, enum_words, map_entry
from nearline import vectors, wire
from nearline.filter_text import filter_to_json

_Encode: TypeAlias = Callable[[Any], Any]


def encode(message: Message) -> dict[str, Any]:
    """Returns the JSON object of a message.

    It has every field that is never unset, and of the others those that are set.
    """
    found: dict[str, Any] = _encoder(message.DESCRIPTOR)(message)
    return found


@cache
def _encoder(descriptor: Descriptor) -> _Encode:
    special = _SPECIAL_ENCODERS.get(descriptor.full_name)
    if special is not None:
        return special
    always: list[tuple[str, _Encode]] = []
    present: list[tuple[str, _Encode]] = []

    def prepare() -> None:
        for field in descriptor.fields:
            (present if field.has_presence else always).append((field.name, _field_encoder(field)))

    def run(message: Any) -> dict[str, Any]:
        if not always and not present:
            prepare()
        found = {name: convert(getattr(message, name)) for name, convert in always}
        for name, convert in present:
            if message.HasField(name):
                found[name] = convert(getattr(message, name))
        return found

    return run


def _field_encoder(field: FieldDescriptor) -> _Encode:
    if (entry := map_entry(field)) is not None:
        value = _value_encoder(entry[1])
        return lambda entries: {str(key): value(entries[key]) for key in entries}
    one = _value_encoder(field)
    if field.is_repeated:
        return lambda values: [one(value) for value in values]
    return one


def _value_encoder(field: FieldDescriptor) -> _Encode:
    if field.message_type is not None:
        if field.message_type.full_name == "nearline.v1.Vectors" and field.name == "vector":
            return lambda found: vectors.decode(found)[0].tolist() if found.data else []
        return _encoder(field.message_type)
    if field.enum_type is not None:
        words = {number: word for word, number in enum_words(field.enum_type).items()}
        return lambda number: words.get(number, "")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda data: base64.b64encode(data).decode()
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return _shortest
    return _same


def _same(value: Any) -> Any:
    return value


def _shortest(number: float) -> float:
    """Returns the number with the fewest digits that stands for the same binary32."""
    return float(str(np.float32(number)))


def _encode_value(message: Any) -> Any:
    match message.WhichOneof("kind"):
        case None:
            return None
        case "time_value":
            return {TIME_KEY: _encode_time(message.time_value)}
        case "list_value":
            return [_encode_value(one) for one in message.list_value.values]
        case kind:
            return getattr(message, kind)


def _encode_time(message: Any) -> str:
    return str(message.ToJsonString())


_SPECIAL_ENCODERS: Mapping[str, _Encode] = {
    "nearline.v1.Filter": lambda message: filter_to_json(wire.filter_from_proto(message)),
    "nearline.v1.Value": _encode_value,
    "nearline.v1.Vectors": lambda message: vectors.decode(message).tolist(),
    "google.protobuf.Timestamp": _encode_time,
    "google.protobuf.Duration": lambda message: message.ToNanoseconds() / 1e9,
}
