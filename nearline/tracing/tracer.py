"""Decides which calls are recorded, and exports their spans by the SDK of OpenTelemetry.

Imported only where calls are recorded.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import Counter

from nearline.errors import SettingsError
from nearline.tracing.token_bucket import TokenBucket
from nearline.tracing.trace_context import SpanReference, format_traceparent, parse_traceparent

Span: TypeAlias = trace.Span
# Calls per second that are recorded because their callers ask for it, in one process. Each costs
# about 0.3 ms, so that a caller who asks for all of them takes a sixteenth of a core.
HONOURED_PER_S: Final = 200.0
# Spans that may wait; of further ones, the newest are kept.
_MAX_WAITING: Final = 8_192
_LIMITS: Final = SpanLimits(max_events=32, max_links=32, max_attribute_length=256)
# Loggers of the SDK: one that a collector which is away keeps busy, and one that shows headers.
_SENDING: Final = "opentelemetry.exporter.otlp.proto.grpc.exporter"
_HEADERS: Final = "opentelemetry.util.re"
_spans = Counter(
    "nearline_trace_spans_total",
    "Spans of recorded calls that were exported, or that the collector did not take: failed.",
    ("outcome",),
)
_exported, _failed = _spans.labels("exported"), _spans.labels("failed")


class Tracer:
    """Decides which calls are recorded, and begins their spans.

    A call is recorded if its caller records its own part: gateway, router and shards thus record
    the same ones. Callers can ask for at most `honoured_per_s` of them, beyond which their calls
    are recorded as often as others. Of calls whose callers say nothing, a share is recorded.

    Args:
        share: Share of the calls that are recorded, 0..1.
        processor: Receives each span at its end.
        resource: This process. Optional.
        honoured_per_s: Calls per second that callers may ask for.
    """

    def __init__(
        self,
        share: float,
        processor: SpanProcessor,
        resource: Resource | None = None,
        honoured_per_s: float = HONOURED_PER_S,
    ) -> None:
        self._share = share
        self._honoured = TokenBucket(honoured_per_s)
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=_LIMITS)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("nearline")
        # The same for all, so that HTTP/2 compresses it to a byte.
        self._not_recorded = format_traceparent(
            f"{provider.id_generator.generate_trace_id():032x}",
            f"{provider.id_generator.generate_span_id():016x}",
            sampled=False,
        )

    def begin(
        self, name: str, traceparent: object, kind: str, others: Iterable[SpanReference] = ()
    ) -> Span | str:
        """Returns the span of a call, or the header that a call which is not recorded passes on.

        Args:
            name: Its name.
            traceparent: The header of the caller; None without one. One that is not valid is
                ignored.
            kind: Name of a `SpanKind`.
            others: Spans of other calls for which this one works, too.
        """
        parent = parse_traceparent(traceparent)
        if parent is None:
            if random.random() >= self._share:
                return self._not_recorded
        elif not parent.sampled or not (self._honoured.take() or random.random() < self._share):
            return format_traceparent(parent.trace_id, parent.span_id, sampled=False)
        return self.start(name, parent and _context(parent), kind, map(_context, others))

    def start(
        self,
        name: str,
        parent: trace.SpanContext | None,
        kind: str = "INTERNAL",
        others: Iterable[trace.SpanContext] = (),
        start_ns: int | None = None,
    ) -> Span:
        """Begins a span. start_ns: When it began, if earlier."""
        context = Context()
        if parent is not None:
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        links = [trace.Link(one) for one in others]
        return self._tracer.start_span(
            name, context, trace.SpanKind[kind], links=links, start_time=start_ns
        )


def _context(reference: SpanReference) -> trace.SpanContext:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(int(reference.trace_id, 16), int(reference.span_id, 16), True, flags)


def end_span(span: Span, error: str, end_ns: int | None = None) -> None:
    """Ends a span. error: Code of the error with which it ends; empty for none."""
    if error:
        span.set_status(trace.Status(trace.StatusCode.ERROR, error))
    span.end(end_ns)


class SpanExporter(OTLPSpanExporter):
    """Sends spans to a collector by OTLP over gRPC, and counts them by outcome.

    Variables of OpenTelemetry (OTEL_EXPORTER_OTLP_*) apply as the SDK documents them.

    Args:
        endpoint: "host:port" or "http://host:port"; "https://host:port" uses TLS.
    Raises: SettingsError: the endpoint or one of the variables is not valid.
    """

    def __init__(self, endpoint: str) -> None:
        url = endpoint_url(endpoint)
        _limit_logs()
        try:
            super().__init__(endpoint=url)
        except Exception as error:
            # The SDK has no type for it.
            raise SettingsError(
                f"traces cannot be exported: {error}; correct the variables OTEL_*"
            ) from error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports a batch."""
        outcome = _failed
        try:
            result = super().export(spans)
            if result is SpanExportResult.SUCCESS:
                outcome = _exported
            return result
        except ValueError:
            # Its channel was closed meanwhile; anything else is logged by the processor.
            if self._shutdown:
                return SpanExportResult.FAILURE
            raise
        finally:
            outcome.inc(len(spans))


class BatchedSpans(BatchSpanProcessor):
    """Exports spans in batches from a thread of the SDK, so that no request waits for it."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(exporter, max_queue_size=_MAX_WAITING)
        self._ending = exporter.shutdown

    def close(self, timeout_s: float) -> None:
        """Sends what waits, for `timeout_s` at most, and ends the thread."""
        # The processor waits up to 30 seconds; an exporter that has ended fails at once.
        timer = threading.Timer(timeout_s, self._ending)
        timer.daemon = True
        timer.start()
        self.shutdown()  # type: ignore[no-untyped-call]
        timer.cancel()


def resource_of(service: str) -> Resource:
    """Returns what spans say of this process. service: Its name; OTEL_SERVICE_NAME counts more."""
    named = {"service.name": service, "service.version": version("nearline")}
    # `create` prefers its argument to the variables.
    return Resource.create(named).merge(OTELResourceDetector().detect())


def _hide_values(record: logging.LogRecord) -> bool:
    """Lets a line pass without the value of a header, which may be secret."""
    record.args = ("(not shown)",)
    return True


def _limit_logs() -> None:
    logging.getLogger(_HEADERS).addFilter(_hide_values)
    # It warns of each attempt; when it gives up, that is an error, logged every 20 s at most.
    logging.getLogger(_SENDING).setLevel(logging.ERROR)


def endpoint_url(endpoint: str) -> str:
    """Returns the URL of a collector: http://host:port or https://host:port.

    Raises: SettingsError: it is not host:port, with or without http:// or https://.
    """
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:
        valid = None
    if not valid or parts.path.strip("/") or parts.query or parts.username or " " in parts.netloc:
        # It may have a password, and the error is logged.
        shown = repr(f"…@{endpoint.rpartition('@')[2]}" if "@" in endpoint else endpoint)
        raise SettingsError(
            f"trace_endpoint is {shown}: give the address where a collector takes OTLP over "
            "gRPC, such as 127.0.0.1:4317 or https://collector.example:4317; headers belong into "
            "OTEL_EXPORTER_OTLP_HEADERS"
        )
    return f"{parts.scheme}://{parts.netloc}"
