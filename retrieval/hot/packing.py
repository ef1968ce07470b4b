"""Hot lists as bytes: JSON, which cannot run anything, and which Python reads in C."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nearline.contract import Attributes
from nearline.errors import InvalidRequest
from retrieval.changes import watermark
from retrieval.hot.records import HotItem, HotKey, HotList

# The number counts the forms of a value.
_PREFIX = "nearline:hot:1"
_TIME = "time"
_TIME_MARK = b'{"time":"'


class Packed(NamedTuple):
    """What lies in Redis: a list, or since when (microseconds) there is none."""

    hot: HotList | None
    computed_us: int


def name_of(key: HotKey) -> str:
    """Gives the name of a list in Redis."""
    return f"{_PREFIX}:{key.collection}:{hashlib.sha256(json.dumps(key).encode()).hexdigest()}"


def pack(packed: Packed) -> bytes:
    """Gives the bytes."""
    hot = packed.hot
    if hot is None:
        return json.dumps([packed.computed_us]).encode()
    parts = [hot.computed_us, hot.cost_s, hot.watermark.hex(), hot.items]
    return json.dumps(parts, default=_time, separators=(",", ":")).encode()


def unpack(data: bytes) -> Packed | None:
    """Reads bytes; None where they are damaged, or somebody else's."""
    try:
        computed_us, *rest = json.loads(data)
        if not rest:
            return Packed(None, int(computed_us))
        cost_s, mark, items = rest
        if _TIME_MARK in data:
            items = [[*others, _with_times(attributes)] for *others, attributes in items]
        made = HotList(
            tuple(map(HotItem._make, items)), int(computed_us), float(cost_s), bytes.fromhex(mark)
        )
        watermark.decode(made.watermark)
        return Packed(made, made.computed_us)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, InvalidRequest):
        return None


def _time(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        return {_TIME: value.astimezone(UTC).isoformat()}
    raise TypeError(f"a hot list cannot hold a {type(value).__name__}: {value!r}")


def _with_times(attributes: dict[str, Any] | None) -> Attributes | None:
    """Gives attributes as they were: no value of theirs is an object unless `_time` made it."""
    return attributes and {name: _value(value) for name, value in attributes.items()}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(one) for one in value]
    return datetime.fromisoformat(value[_TIME]) if isinstance(value, dict) else value
