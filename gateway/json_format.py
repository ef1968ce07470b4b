"""The JSON of the gateway: what reading and writing it share.

    {"query": {"text": "red shoes"}, "options": {"filter": "price < 80", "payload": ["title"]}}

Names are those of the protos. Enums are lower-case words ("dense"; "" is unset), durations are
seconds, times are RFC 3339, bytes are base64. The field `vector` is a list of numbers, `vectors` a
list of such lists. Attribute values are plain JSON; a time among them is
{"$time": "2024-05-01T12:00:00Z"}. A filter is a text or JSON, as in `nearline.filter_text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

TIME_KEY: Final = "$time"


@cache
def enum_words(enum: EnumDescriptor) -> Mapping[str, int]:
    """Returns the number of each word of an enum, without the one that stands for unset."""
    first = enum.values[0].name
    prefix = first[: first.rindex("_") + 1]
    return {one.name.removeprefix(prefix).lower(): one.number for one in enum.values if one.number}


def map_entry(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor] | None:
    """Returns the key and the value of a field that is a map; None of any other."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["key"], entry.fields_by_name["value"]
