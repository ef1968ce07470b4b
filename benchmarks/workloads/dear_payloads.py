"""Requests that are cheap in bytes and dear when decoded, drawn from the descriptors of methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

# Fields that lead to the one that is repeated, at most.
_DEPTH: Final = 3
_NESTED: Final = 5_000
# Fields of the requests of other systems, and of tools.
_DOOR_FIELDS: Final = (b"messages", b"input", b"documents", b"texts", b"inputs", b"query")
_Path = tuple[FieldDescriptor, ...]


def wire_payloads(message: Descriptor, size: int) -> dict[str, bytes]:
    """Returns requests of about `size` bytes by their kind.

    Each repeats a field that has no content, or nests a message in itself.
    """
    found = {}
    for path in _paths(message):
        data, last = b"", path[-1]
        for _ in range(1 if last.is_repeated else _NESTED):
            data = _field(last, data)
        data *= size // len(data) if last.is_repeated else 1
        for field in reversed(path[:-1]):
            data = _field(field, data)
        found[".".join(field.name for field in path)] = data
    # Number 2,000, which no message has.
    return found | {"unknown fields": b"\x82\x7d\x00" * (size // 3)}


def json_payloads(message: Descriptor | None, size: int, lines: bool) -> dict[str, bytes]:
    """Returns bodies of about `size` bytes by their kind.

    Args:
        message: What a body, or a line of it, stands for; None for another system's request.
        size: Bytes.
        lines: Whether the body is a message per line.
    """
    found, many = {}, b"[" + b"{}," * (size // 3) + b"{}]"
    if not message:
        few = b"[" + b"{}," * (size // 3 // len(_DOOR_FIELDS)) + b"{}]"
        found["all fields"] = b"{%s}" % b",".join(b'"%s":%s' % (one, few) for one in _DOOR_FIELDS)
    for path in _paths(message) if message else ():
        text = many
        for field in reversed(path):
            is_list = field.is_repeated and field is not path[-1]
            text = b'{"%s":%s}' % (field.name.encode(), b"[%s]" % text if is_list else text)
        found[".".join(field.name for field in path)] = text
    found |= {"a list of {}": many, "lists in lists": b"[" * size}
    endless = {"lines of {}": b"{}\n" * (size // 3), "a line that never ends": b" " * size}
    return found | endless if lines else found


def _paths(message: Descriptor, above: _Path = ()) -> Iterator[_Path]:
    """Yields the paths of fields that may be repeated without content, or hold themselves."""
    for field in sorted(message.fields, key=lambda one: one.message_type is None):
        if field.cpp_type < FieldDescriptor.CPPTYPE_STRING:
            continue
        path = (*above, field)
        kinds = [one.containing_type for one in path]
        if field.is_repeated or field.message_type in kinds:
            yield path
        if field.message_type and field.message_type not in kinds and len(path) < _DEPTH:
            yield from _paths(field.message_type, path)


def _field(field: FieldDescriptor, data: bytes) -> bytes:
    """Returns a field with a length."""
    return _varint(field.number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    return bytes((number,)) if number < 128 else bytes((number & 127 | 128,)) + _varint(number >> 7)
