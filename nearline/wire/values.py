"""Attribute values, points in time and durations: Python to protobuf and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.times import in_utc
from nearline.v1 import retrieval_pb2, types_pb2
from nearline.wire.limits import USER_ATTRIBUTES, check_count


def timestamp(time: datetime | None) -> Timestamp | None:
    """Returns the message of a time, or None for None."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(in_utc(time))
    return message


def time_from_proto(message: Timestamp, field: str) -> datetime:
    """Returns the time of a message.

    Raises: InvalidRequest: a time outside the years 1 to 9999.
    """
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{field} is {message.seconds} s and {message.nanos} ns after 1970, which is not in "
            "the years 1 to 9999",
            field=field,
        ) from error


_INT64 = range(-(1 << 63), 1 << 63)


def same_fields(source: object, record: type[Any]) -> dict[str, Any]:
    """Returns the fields of a record class by name, as its message has them under the same names.

    Args:
        source: The record, or the message.
        record: The class of the record.
    """
    return {field.name: getattr(source, field.name) for field in fields(record)}


def value_to_proto(value: c.AttributeValue) -> types_pb2.Value:
    """Returns the message of a str, bool, int, float, datetime, None or a list of them.

    Raises: InvalidRequest: a value of any other type, or a nested list.
    """
    if value is None:
        return types_pb2.Value()
    if isinstance(value, str):
        return types_pb2.Value(string_value=value)
    if isinstance(value, bool):  # before int: a bool is an int in Python
        return types_pb2.Value(bool_value=value)
    if isinstance(value, int):
        if value not in _INT64:
            raise InvalidRequest(f"{value} needs more than 64 bits; send it as text or as a float")
        return types_pb2.Value(int_value=value)
    if isinstance(value, float):
        return types_pb2.Value(double_value=value)
    if isinstance(value, datetime):
        time = Timestamp()
        time.FromDatetime(in_utc(value))
        return types_pb2.Value(time_value=time)
    if isinstance(value, list | tuple) and not any(isinstance(v, list | tuple) for v in value):
        return types_pb2.Value(
            list_value=types_pb2.ValueList(values=[value_to_proto(v) for v in value])
        )
    raise InvalidRequest(
        f"attribute value of type {type(value).__name__} is not supported; use str, bool, int, "
        "float, datetime, None or a flat list of them"
    )


def value_from_proto(value: types_pb2.Value) -> c.AttributeValue:
    """Returns the Python value; times are aware datetimes in UTC."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "time_value":
        try:
            return value.time_value.ToDatetime(UTC)
        except (ValueError, OverflowError) as error:
            raise InvalidRequest(
                f"a time is {value.time_value.seconds} s after 1970, which is not in the years 1 "
                "to 9999"
            ) from error
    if kind == "list_value":
        return [scalar_from_proto(element) for element in value.list_value.values]
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return value.int_value
    return value.double_value if kind == "double_value" else value.bool_value


def scalar_from_proto(message: types_pb2.Value) -> c.Scalar:
    """Returns the Python value of a message that must not be a list.

    Raises: InvalidRequest: it is a list.
    """
    value = value_from_proto(message)
    if value is None or isinstance(value, str | bool | int | float | datetime):
        return value
    raise InvalidRequest("a list stands where one value is needed; lists do not nest")


def attributes_from_proto(attributes: Mapping[str, types_pb2.Value]) -> c.Attributes:
    """Returns the attributes as Python values."""
    if not attributes:
        # Most users and requests have none.
        return {}
    return {name: value_from_proto(value) for name, value in attributes.items()}


def user_attributes(values: Mapping[str, types_pb2.Value], field: str) -> c.Attributes:
    """Returns attributes of a user or a request. Raises: InvalidRequest: there are too many."""
    check_count(len(values), field, USER_ATTRIBUTES, "leave out what few users share")
    return attributes_from_proto(values)


def values_by_name(attributes: c.Attributes) -> dict[str, types_pb2.Value]:
    """Returns attributes as the map of a message. Raises: see `value_to_proto`."""
    return {name: value_to_proto(value) for name, value in attributes.items()}


def set_attributes(
    target: retrieval_pb2.Hit | retrieval_pb2.Item, attributes: c.Attributes
) -> None:
    """Fills the attribute map of a message."""
    for name, value in attributes.items():
        target.attributes[name].CopyFrom(value_to_proto(value))


def duration(seconds: float) -> Duration:
    """Returns a protobuf duration, to the microsecond."""
    message = Duration()
    set_duration(message, seconds)
    return message


def set_duration(target: Duration, seconds: float) -> None:
    """Sets a duration, to the microsecond; also sets zero explicitly."""
    whole = int(seconds)
    target.seconds, target.nanos = whole, int((seconds - whole) * 1e6) * 1000
    target.SetInParent()


def seconds(message: Duration) -> float:
    """Returns a protobuf duration in seconds."""
    return message.seconds + message.nanos / 1e9
