"""Ends of calls that a server answers: their spans, exemplars and lines in the slow log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nearline.tracing.call_facts import call_facts
from nearline.tracing.client_calls import end_rpc
from nearline.tracing.slow_requests import SlowRequestLog
from nearline.tracing.spans import Scalar, Span, current_span, set_facts, trace_id_of
from nearline.tracing.trace_context import TRACE_ID_KEY


def exemplar(span: Span | None) -> dict[str, str] | None:
    """Returns the exemplar of an observation; None if the call is not recorded."""
    return None if span is None else {"trace_id": trace_id_of(span)}


def trace_trailers(span: Span | None) -> tuple[tuple[str, str], ...]:
    """Returns the trailers by which the caller learns the trace of its call."""
    return () if span is None else ((TRACE_ID_KEY, trace_id_of(span)),)


def with_trace(trailers: Iterable[tuple[str, Any]] | None) -> tuple[tuple[str, Any], ...]:
    """Returns trailers of another service, with the trace of the call that runs now, if any."""
    kept = tuple(trailers or ())
    if (span := current_span()) is None:
        return kept
    return (*(one for one in kept if one[0] != TRACE_ID_KEY), *trace_trailers(span))


def end_call(
    span: Span | None,
    slow: SlowRequestLog | None,
    method: str,
    code: str,
    seconds: float,
    request: Any,
    reply: Any = None,
) -> None:
    """Ends the span of a call, and logs the call if it was slow.

    Args:
        span: Its span; None if it is not recorded.
        slow: Where the call is logged; None if it was not slow.
        method: "package.Service/Method".
        code: Name of its gRPC status.
        seconds: How long it took.
        request, reply: See `call_facts`.
    """
    if span is None and slow is None:
        return
    facts: dict[str, Scalar] = call_facts(request, reply)
    if slow is not None:
        slow.write(method, code, seconds, facts, span)
    if span is not None:
        set_facts(span, facts)
        end_rpc(span, method, code)
