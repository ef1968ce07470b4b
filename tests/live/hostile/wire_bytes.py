"""Bytes that no generated code would write: protobuf messages by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_VARINT, _BYTES = 0, 2


def varint(number: int) -> bytes:
    """Returns a varint."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def bytes_field(number: int, data: bytes) -> bytes:
    """Returns a field with a length and data."""
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def number_field(number: int, value: int) -> bytes:
    """Returns a field with a number; a negative one has ten bytes."""
    return varint(number << 3 | _VARINT) + varint(value & (1 << 64) - 1)


def raw(kind: type[Message], path: str, content: bytes | int) -> bytes:
    """Returns a request with one field: its path, and its bytes or its number."""
    descriptor: Any = kind.DESCRIPTOR
    numbers: list[int] = []
    for name in path.split("."):
        found = descriptor.fields_by_name[name]
        numbers.append(found.number)
        descriptor = found.message_type
    last = numbers.pop()
    data = number_field(last, content) if isinstance(content, int) else bytes_field(last, content)
    for number in reversed(numbers):
        data = bytes_field(number, data)
    return data


def nested(kind: type[Message], path: str, through: str, depth: int) -> bytes:
    """Returns a request whose field nests `through` in itself.

    Args:
        kind: The request.
        path: Path of the field.
        through: Path from a message of the field to one of the same kind.
        depth: How deep.
    """
    descriptor: Any = kind.DESCRIPTOR
    for name in path.split("."):
        descriptor = descriptor.fields_by_name[name].message_type
    numbers = []
    for name in through.split("."):
        numbers.append(descriptor.fields_by_name[name].number)
        descriptor = descriptor.fields_by_name[name].message_type
    data = b""
    for _ in range(depth):
        for number in reversed(numbers):
            data = bytes_field(number, data)
    return raw(kind, path, data)


def text_paths(kind: type[Message]) -> Iterator[str]:
    """Yields the path of every string field of a request, also within maps and messages."""
    yield from _paths(kind.DESCRIPTOR, (), FieldDescriptor.TYPE_STRING)


def enum_paths(kind: type[Message]) -> Iterator[str]:
    """Yields the path of every enum field of a request."""
    yield from _paths(kind.DESCRIPTOR, (), FieldDescriptor.TYPE_ENUM)


def _paths(descriptor: Any, above: tuple[Any, ...], wanted: int) -> Iterator[str]:
    for field in descriptor.fields:
        if field.type == wanted:
            yield field.name
        inner = field.message_type
        if inner is not None and inner not in (*above, descriptor):
            for path in _paths(inner, (*above, descriptor), wanted):
                yield f"{field.name}.{path}"
