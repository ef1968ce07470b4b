"""Facts that hostile callers know about the services, and values that several tables use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from nearline.internal.v1 import change_pb2
from nearline.v1 import types_pb2 as t

DIM = 8
# No calendar of Python has these.
BEFORE_YEAR_1 = Timestamp(seconds=-62_135_596_801)
AFTER_YEAR_9999 = Timestamp(seconds=253_402_300_800)
YEAR_9999 = Timestamp(seconds=253_402_300_799, nanos=999_999_999)
BEFORE_1970 = Timestamp(seconds=-1)
MANY_NANOS = Timestamp(seconds=1, nanos=2_000_000_000)
# Names that lead out of a store, or into the formats around it.
PATHS = {
    "of parent folders": "../../etc/passwd",
    "of an absolute path": "/etc/passwd",
    "with a NUL": "default\0",
    "with a line break": "default\r\nSET x 1",
    "of a pattern": "*",
    "of 20 KB": "a" * 20_000,
}
MB = 1 << 20
# The largest message that a server takes.
LIMIT = 64 * MB


@dataclass(frozen=True, slots=True)
class Known:
    """Facts of the running services.

    snapshot_id: The current snapshot of collection "default". token: A page token of it, for a list
    without a filter. watermark: Of its change log. other_token, other_watermark: The same of
    another collection.
    """

    snapshot_id: str = "20260101T000000Z-000000"
    token: str = ""
    watermark: bytes = b""
    other_token: str = ""
    other_watermark: bytes = b""


def vector(*numbers: float, dim: int = 0) -> t.Vectors:
    """Returns a vector of these numbers."""
    data = np.array(numbers, "<f4").tobytes()
    return t.Vectors(data=data, dim=dim or len(numbers))


def unit(dim: int = DIM) -> t.Vectors:
    """Returns a vector of unit length."""
    return vector(1.0, *[0.0] * (dim - 1))


def with_first(number: float) -> t.Vectors:
    """Returns a vector of the collection's dimension that begins with a number."""
    return vector(number, *[1.0] * (DIM - 1))


def equals(field: str, **value: object) -> t.Filter:
    """Returns the condition that an attribute equals a value: equals("year", int_value=3)."""
    made = t.Value(**value)  # type: ignore[arg-type]
    return t.Filter(equals=t.FieldEquals(field=field, value=made))


def all_of(*parts: t.Filter) -> t.Filter:
    """Returns a filter that needs every part."""
    return t.Filter(all=t.FilterList(filters=parts))


def not_of(depth: int) -> t.Filter:
    """Returns NOT of NOT of … of a condition."""
    made = equals("kind", string_value="a")
    for _ in range(depth):
        outer = t.Filter()
        getattr(outer, "not").CopyFrom(made)
        made = outer
    return made


def one_of(field: str, *values: t.Value) -> t.Filter:
    """Returns the condition that an attribute equals one of several values."""
    made = t.Filter()
    getattr(made, "in").field = field
    getattr(made, "in").values.extend(values)
    return made


def forged_watermark(log_id: str = "ab" * 16, position: int = 1, positions: int = 64) -> bytes:
    """Returns a watermark that no log has given out."""
    return change_pb2.Watermark(log_id=log_id, positions=[position] * positions).SerializeToString()
