"""Exports spans by the SDK of OpenTelemetry; imported only where calls are recorded."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Counter

from nearline.errors import SettingsError
from nearline.tracing.spans import Span

# Spans that may wait; further ones are dropped and counted.
MAX_WAITING: Final = 8_192
_LOG_EVERY_S: Final = 60.0
# Loggers of the SDK that a collector which is away keeps busy, or that show headers.
_SENDING: Final = "opentelemetry.exporter.otlp.proto.grpc.exporter"
_BATCHING: Final = "opentelemetry.sdk._shared_internal"
_HEADERS: Final = "opentelemetry.util.re"
_SCOPE: Final = InstrumentationScope("nearline")
_UNSET: Final = trace.Status()
_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_spans = Counter(
    "nearline_trace_spans_total",
    "Spans of recorded calls: exported, dropped because too many waited, or failed to export.",
    ("outcome",),
)
_exported, _dropped, _failed = (_spans.labels(one) for one in ("exported", "dropped", "failed"))


class SpanExporter:
    """Sends spans to a collector by OTLP over gRPC, from a thread of the SDK.

    Spans wait in a queue of bounded length. A batch that the collector does not take within
    OTEL_EXPORTER_OTLP_TIMEOUT is lost: requests never wait for it. Variables of OpenTelemetry
    (OTEL_EXPORTER_OTLP_*, OTEL_BSP_SCHEDULE_DELAY, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME)
    apply as the SDK documents them.

    Args:
        endpoint: "host:port" or "http://host:port"; "https://host:port" uses TLS.
        service: Name of this process, such as "nearline-retrieval".
    Raises: SettingsError: the endpoint or one of the variables is not valid.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        url = endpoint_url(endpoint)
        _limit_logs()
        self._room = threading.Semaphore(MAX_WAITING)
        self._closed = False
        named = {"service.name": service, "service.version": version("nearline")}
        try:
            # `create` prefers its argument to the variables.
            self._resource = Resource.create(named).merge(OTELResourceDetector().detect())
            self._exporter = _CountingExporter(url, self._room)
            self._processor = BatchSpanProcessor(self._exporter, max_queue_size=MAX_WAITING)
        except Exception as error:
            # The SDK has no type for it.
            raise SettingsError(
                f"traces cannot be exported: {error}; correct the variables OTEL_*"
            ) from error

    def add(self, span: Span) -> None:
        """Sends a span soon, or drops it if too many wait."""
        # The SDK drops spans of a full queue without counting them: keep it from being full.
        if self._closed or not self._room.acquire(blocking=False):
            _dropped.inc()
        else:
            self._processor.on_end(sdk_span(span, self._resource))

    def close(self, timeout_s: float) -> None:
        """Sends what waits, as far as that is possible in so many seconds, and ends the thread."""
        self._closed = True
        # The processor waits up to 30 seconds; an exporter that has ended fails at once.
        timer = threading.Timer(timeout_s, self._exporter.shutdown)
        timer.daemon = True
        timer.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        timer.cancel()


class _CountingExporter(OTLPSpanExporter):
    """Counts spans by outcome, and releases their places in the queue."""

    def __init__(self, url: str, room: threading.Semaphore) -> None:
        super().__init__(endpoint=url)
        self._room = room

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports a batch that the processor has taken from its queue."""
        self._room.release(len(spans))
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


class _LogFilter(logging.Filter):
    """Lets each kind of line pass once a minute, without values of headers: they may be secret."""

    def __init__(self) -> None:
        super().__init__()
        # By place in the code of the SDK: its messages may hold values, and would be without end.
        self._next_s: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, place = time.monotonic(), (record.pathname, record.lineno)
        if now < self._next_s.get(place, 0.0):
            return False
        self._next_s[place] = now + _LOG_EVERY_S
        if record.name == _HEADERS:
            record.args = ("(not shown)",)
        return True


_FILTER: Final = _LogFilter()


def _limit_logs() -> None:
    for name in (_SENDING, _BATCHING, _HEADERS):
        logging.getLogger(name).addFilter(_FILTER)
    # It warns of each attempt; when it gives up, that is an error.
    logging.getLogger(_SENDING).setLevel(logging.ERROR)


def sdk_span(span: Span, resource: Resource) -> ReadableSpan:
    """Returns a span that has ended, as a span of the SDK."""
    parent = None
    if span.parent_id:
        # Only the parent of the first span here belongs to another process.
        parent = _context(span.trace_id, span.parent_id, is_remote=span.root is span)
    return ReadableSpan(
        span.name,
        context=_context(span.trace_id, span.span_id),
        parent=parent,
        resource=resource,
        # A task that outlives its call may still add to it.
        attributes=dict(span.attributes),
        events=[Event(name, attributes, time_ns) for time_ns, name, attributes in span.events],
        links=[
            trace.Link(_context(one.trace_id, one.span_id, is_remote=True)) for one in span.links
        ],
        kind=trace.SpanKind[span.kind.name],
        status=trace.Status(trace.StatusCode.ERROR, span.error) if span.error else _UNSET,
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: str, span_id: str, *, is_remote: bool = False) -> trace.SpanContext:
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, _SAMPLED)


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
