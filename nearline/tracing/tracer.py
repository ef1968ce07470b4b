"""Decides which calls are recorded; one tracer serves the whole process."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, Final

from nearline.tracing.spans import Span, SpanKind, carry
from nearline.tracing.token_bucket import TokenBucket
from nearline.tracing.trace_context import (
    TRACEPARENT,
    format_traceparent,
    new_span_id,
    new_trace_id,
    parse_traceparent,
)

# Calls per second that are recorded because their callers ask for it, in one process. Each costs
# about 0.2 ms, so that a caller who asks for all of them takes a twentieth of a core.
HONOURED_PER_S: Final = 200.0


class Tracer:
    """Decides which calls are recorded.

    A call is recorded if its caller records its own part: gateway, router and shards thus record
    the same ones. Callers can ask for at most `honoured_per_s` of them, beyond which their calls
    are recorded as often as others. Of calls whose callers say nothing, a share is recorded.

    Args:
        share: Share of the calls that are recorded, 0..1.
        finish: Called with each span at its end, from any thread; must be quick and never raise.
        honoured_per_s: Calls per second that callers may ask for.
    """

    def __init__(
        self,
        share: float,
        finish: Callable[[Span], None],
        honoured_per_s: float = HONOURED_PER_S,
    ) -> None:
        self._share = share
        self._finish = finish
        self._honoured = TokenBucket(honoured_per_s)
        # The same for all, so that HTTP/2 compresses it to a byte.
        self._not_recorded = format_traceparent(new_trace_id(), new_span_id(), sampled=False)

    def begin(
        self, name: str, traceparent: object, kind: SpanKind = SpanKind.SERVER
    ) -> Span | None:
        """Begins a call in the current task; returns its span, None if it is not recorded.

        traceparent: The header of the caller; None without one. One that is not valid is ignored.
        """
        parent = None if traceparent is None else parse_traceparent(traceparent)
        if parent is None:
            if random.random() >= self._share:
                carry(self._not_recorded)
                return None
            trace_id, parent_id = new_trace_id(), ""
        else:
            trace_id, parent_id, sampled = parent
            if not sampled or not (self._honoured.take() or random.random() < self._share):
                carry(format_traceparent(trace_id, parent_id, sampled=False))
                return None
        span = Span.begin(name, kind, trace_id, parent_id, self._finish)
        carry(span)
        return span


_tracer: Tracer | None = None


def use_tracer(tracer: Tracer | None) -> None:
    """Records calls of this process from now on; None records none."""
    global _tracer
    _tracer = tracer


def is_tracing() -> bool:
    """Returns whether calls may be recorded."""
    return _tracer is not None


def begin_call(name: str, metadata: Callable[[], Iterable[Any] | None]) -> Span | None:
    """Begins a call of gRPC in the current task; returns its span, None if it is not recorded.

    metadata: Returns the metadata of the call; not called while nothing is traced.
    """
    if _tracer is None:
        return None
    found = None
    for key, value in metadata() or ():
        if key == TRACEPARENT:
            found = value
            break
    return _tracer.begin(name, found)


def begin_request(name: str, traceparent: str | None) -> Span | None:
    """Begins a request of HTTP in the current task; as `begin_call`."""
    return None if _tracer is None else _tracer.begin(name, traceparent)


def begin_work(name: str, traceparents: Iterable[str]) -> Span | None:
    """Begins work that earlier calls left in a queue, in the current task; as `begin_call`.

    traceparents: Headers that those calls left with it. The work is a part of the first one that is
        valid, and has links to the others.
    """
    if _tracer is None:
        return None
    found = [one for one in dict.fromkeys(traceparents) if parse_traceparent(one) is not None]
    span = _tracer.begin(name, next(iter(found), None), SpanKind.CONSUMER)
    if span is not None:
        span.link(filter(None, map(parse_traceparent, found[1:])))
    return span
