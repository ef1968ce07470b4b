"""A collector that counts spans and drops them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


class TraceSink:
    """Counts spans. address: Where it takes them by OTLP. spans: How many so far."""

    def __init__(self) -> None:
        self.address = ""
        self.spans = 0

    def export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Takes spans."""
        self.spans += sum(
            len(scope.spans) for group in request.resource_spans for scope in group.scope_spans
        )
        return ExportTraceServiceResponse()


@contextlib.contextmanager
def trace_sink() -> Iterator[TraceSink]:
    """Runs a collector in this process for the duration of the block."""
    sink = TraceSink()
    method = grpc.unary_unary_rpc_method_handler(
        sink.export,
        ExportTraceServiceRequest.FromString,
        ExportTraceServiceResponse.SerializeToString,
    )
    # One thread, which alone counts.
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"Export": method}),)
        )
        sink.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield sink
        finally:
            server.stop(1.0).wait()
