"""Spans as messages of the OpenTelemetry protocol (OTLP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from nearline.tracing.spans import Scalar, Span

_SAMPLED: Final = 1


def export_request(
    spans: Sequence[Span], resource: Mapping[str, Scalar]
) -> ExportTraceServiceRequest:
    """Returns the message that exports spans.

    resource: Attributes of this process, such as service.name.
    """
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    _add_attributes(group.resource.attributes, resource)
    scope = group.scope_spans.add()
    scope.scope.name = "nearline"
    for span in spans:
        _add_span(scope.spans, span)
    return request


def _add_span(spans: Any, span: Span) -> None:
    message = spans.add(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        name=span.name,
        kind=span.kind,
        flags=_SAMPLED,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
    )
    _add_attributes(message.attributes, span.attributes)
    for time_ns, name, attributes in span.events:
        event = message.events.add(time_unix_nano=time_ns, name=name)
        _add_attributes(event.attributes, attributes)
    for link in span.links:
        message.links.add(
            trace_id=bytes.fromhex(link.trace_id), span_id=bytes.fromhex(link.span_id)
        )
    if span.error:
        message.status.code = Status.STATUS_CODE_ERROR
        message.status.message = span.error


def _add_attributes(attributes: Any, found: Mapping[str, Scalar]) -> None:
    for key, value in found.items():
        holder = attributes.add(key=key).value
        # A bool is an int, too.
        if isinstance(value, bool):
            holder.bool_value = value
        elif isinstance(value, int):
            holder.int_value = value
        elif isinstance(value, float):
            holder.double_value = value
        else:
            holder.string_value = value
