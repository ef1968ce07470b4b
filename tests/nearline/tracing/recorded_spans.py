"""Recorded calls of tests, in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nearline.tracing.spans import carry, use_tracer
from nearline.tracing.trace_context import format_traceparent
from nearline.tracing.tracer import Tracer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = format_traceparent(TRACE, SPAN, sampled=True)


@contextlib.contextmanager
def recording(share: float = 0.0, honoured_per_s: float = 1e9) -> Iterator[InMemorySpanExporter]:
    """Records calls in the block; yields what keeps the spans that have ended."""
    ended = InMemorySpanExporter()
    carry(None)
    use_tracer(Tracer(share, SimpleSpanProcessor(ended), honoured_per_s=honoured_per_s))
    try:
        yield ended
    finally:
        use_tracer(None)
        carry(None)
