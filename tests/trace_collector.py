"""A collector of traces: a real server of OTLP over gRPC that keeps what it is sent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from tests.trace_sink import otlp_server


class ReceivedSpan(NamedTuple):
    """A span that a collector received; ids as hexadecimal digits, times in nanoseconds."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    error: str


class Collector:
    """Spans that a collector received. metadata: Of the last call."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[ReceivedSpan] = []
        self.address = ""
        self.metadata: dict[str, Any] = {}
        self.resource: dict[str, Any] = {}

    def export(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Keeps spans."""
        self.metadata = dict(context.invocation_metadata())
        found = []
        for group in request.resource_spans:
            self.resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                found += [_received(str(self.resource["service.name"]), one) for one in scope.spans]
        with self._changed:
            self._spans += found
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """The spans so far."""
        with self._changed:
            return list(self._spans)

    def wait_for(
        self, enough: Callable[[list[ReceivedSpan]], bool], timeout_s: float = 20.0
    ) -> list[ReceivedSpan]:
        """Returns the spans, once there are enough."""
        with self._changed:
            met = self._changed.wait_for(lambda: enough(self._spans), timeout_s)
            last = [(one.service, one.name) for one in self._spans[-100:]]
            assert met, f"not enough spans: {len(self._spans)}, the last ones {last}"
            return list(self._spans)


@contextlib.contextmanager
def trace_collector(
    credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> Iterator[Collector]:
    """Runs a collector on a free port for the length of the block."""
    collector = Collector()
    with otlp_server(collector.export, threads=4, port=port, credentials=credentials) as address:
        collector.address = address
        yield collector


def _received(service: str, span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        events=[one.name for one in span.events],
        links=[one.trace_id.hex() for one in span.links],
        error=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else "",
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in attributes}


def tree(spans: list[ReceivedSpan]) -> str:
    """Returns a picture of a trace, for people."""
    children: dict[str, list[ReceivedSpan]] = {}
    known = {one.span_id for one in spans}
    for one in sorted(spans, key=lambda one: one.start_ns):
        children.setdefault(one.parent_id if one.parent_id in known else "", []).append(one)
    lines: list[str] = []

    def add(parent: str, depth: int) -> None:
        for one in children.get(parent, ()):
            ms = (one.end_ns - one.start_ns) / 1e6
            lines.append(f"{ms:9.2f} ms  {'  ' * depth}{one.name}  [{one.service}] {one.error}")
            add(one.span_id, depth + 1)

    add("", 0)
    return "\n".join(lines)
