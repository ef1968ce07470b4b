"""A collector that counts spans and drops them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
    # One thread, which alone counts.
    with otlp_server(sink.export, threads=1, grace_s=1.0) as sink.address:
        yield sink


@contextlib.contextmanager
def otlp_server(
    export: Callable[[ExportTraceServiceRequest, grpc.ServicerContext], ExportTraceServiceResponse],
    *,
    threads: int,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
    grace_s: float | None = None,
) -> Iterator[str]:
    """Runs a server of OTLP over gRPC on the loopback address; yields its address.

    Args:
        export: Answers calls.
        threads: Number of threads that answer.
        port: Its port; 0 takes a free one.
        credentials: For TLS. Optional.
        grace_s: Seconds for calls in flight at the end; None ends them at once.
    """
    method = grpc.unary_unary_rpc_method_handler(
        export,
        ExportTraceServiceRequest.FromString,
        ExportTraceServiceResponse.SerializeToString,
    )
    with ThreadPoolExecutor(threads) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"Export": method}),)
        )
        address = f"127.0.0.1:{port}"
        if credentials is None:
            found = server.add_insecure_port(address)
        else:
            found = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield f"127.0.0.1:{found}"
        finally:
            server.stop(grace_s).wait()
