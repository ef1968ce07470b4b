"""The header `traceparent`, by which a caller names the span that a call belongs to.

Source: W3C Trace Context, level 1. `tracestate` is not read: nothing here needs it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
# With the reply of a recorded call.
TRACE_ID_KEY: Final = "x-trace-id"
# A later version may be longer, which is not read.
_MAX_LENGTH: Final = 512
_FORMAT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


class SpanReference(NamedTuple):
    """A span of another process.

    trace_id: 32 hexadecimal digits. span_id: 16 of them. sampled: Whether it is recorded.
    """

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: object) -> SpanReference | None:
    """Returns the span that a header names; None if the header is not valid."""
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        return None
    found = _FORMAT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not trace_id.strip("0"):
        return None
    if not span_id.strip("0"):
        return None
    return SpanReference(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def format_traceparent(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """Returns the header that names a span."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"
