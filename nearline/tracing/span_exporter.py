"""Sends spans to a collector, from a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client import Counter

from nearline.errors import SettingsError
from nearline.thread_priority import give_way
from nearline.tracing.otlp import export_request
from nearline.tracing.spans import Scalar, Span

# Spans that may wait; further ones are dropped and counted. About 10 MB.
MAX_WAITING: Final = 8_192
_BATCH: Final = 512
_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_EVERY_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
_LOG_EVERY_S: Final = 60.0
# While a collector is away, its thread waits so long between attempts.
_AWAY_S: Final = 5.0
_log = logging.getLogger(__name__)
_spans = Counter(
    "nearline_trace_spans_total",
    "Spans of recorded calls: exported, dropped because too many waited, or failed to export.",
    ("outcome",),
)


class SpanExporter:
    """Sends spans to a collector by OTLP over gRPC.

    Spans wait in a queue of bounded length. A batch that the collector does not take is lost: what
    is recorded is a sample anyway, and the requests must not wait for it.

    Args:
        endpoint: "host:port" or "http://host:port"; "https://host:port" uses TLS.
        service: Name of this process, such as "nearline-retrieval".
        environ: OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_SERVICE_NAME and
            OTEL_RESOURCE_ATTRIBUTES are read, as all software with OpenTelemetry reads them.
    Raises: SettingsError: the endpoint or one of the variables is not valid.
    """

    def __init__(self, endpoint: str, service: str, environ: Mapping[str, str]) -> None:
        target, has_tls = parse_endpoint(endpoint)
        self._endpoint = endpoint
        self._headers = tuple(
            (key.lower(), value)
            for key, value in _pairs(environ, "OTEL_EXPORTER_OTLP_HEADERS").items()
        )
        self._resource: dict[str, Scalar] = {
            "service.name": service,
            "service.version": version("nearline"),
            **_pairs(environ, "OTEL_RESOURCE_ATTRIBUTES"),
        }
        if name := environ.get("OTEL_SERVICE_NAME"):
            self._resource["service.name"] = name
        options = (("grpc.use_local_subchannel_pool", 1),)
        if has_tls:
            roots = _certificate(environ)
            credentials = grpc.ssl_channel_credentials(roots)
            self._channel = grpc.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._export = self._channel.unary_unary(
            _METHOD,
            request_serializer=ExportTraceServiceRequest.SerializeToString,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        self._waiting: deque[Span] = deque()
        self._closing = threading.Event()
        # When the thread must have ended, once it is closing.
        self._end_by = 0.0
        self._logged_s = -_LOG_EVERY_S
        self._exported, self._dropped, self._failed = (
            _spans.labels(one) for one in ("exported", "dropped", "failed")
        )
        self._thread = threading.Thread(target=self._run, name="span-exporter", daemon=True)
        self._thread.start()

    def add(self, span: Span) -> None:
        """Sends a span soon, or drops it if too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped.inc()
        else:
            self._waiting.append(span)

    def close(self, timeout_s: float) -> None:
        """Sends what waits, as far as that is possible in so many seconds, and ends the thread."""
        self._end_by = time.monotonic() + timeout_s
        self._closing.set()
        self._thread.join(timeout_s)
        self._dropped.inc(len(self._waiting))
        self._channel.close()

    def _run(self) -> None:
        give_way()
        pause_s = _EVERY_S
        while not self._closing.wait(pause_s):
            pause_s = _EVERY_S
            while self._waiting and not self._closing.is_set():
                if not self._send(_TIMEOUT_S):
                    pause_s = _AWAY_S
                    break
        while self._waiting and (left_s := self._end_by - time.monotonic()) > 0:
            if not self._send(left_s):
                return

    def _send(self, timeout_s: float) -> bool:
        """Sends a batch; returns whether the collector took it."""
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        try:
            request = export_request(batch, self._resource)
            self._export(request, timeout=timeout_s, metadata=self._headers)
        except grpc.RpcError as error:
            self._fail(len(batch), f"{error.code().name}: {error.details()}")
            return False
        except Exception as error:
            # The channel may be closed by now. Whatever it is, requests go on.
            self._fail(len(batch), repr(error))
            return False
        self._exported.inc(len(batch))
        return True

    def _fail(self, count: int, reason: str) -> None:
        self._failed.inc(count)
        now = time.monotonic()
        if now - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now
            _log.warning(
                "spans were not exported",
                extra={"endpoint": self._endpoint, "spans": count, "reason": reason[:300]},
            )


def parse_endpoint(endpoint: str) -> tuple[str, bool]:
    """Returns the target of a channel, and whether it uses TLS.

    Raises: SettingsError: it is not host:port, with or without http:// or https://.
    """
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:
        valid = None
    if not valid or parts.path.strip("/") or parts.query or parts.username:
        raise SettingsError(
            f"trace_endpoint is {endpoint!r}: give the address where a collector takes OTLP over "
            "gRPC, such as 127.0.0.1:4317 or https://collector.example:4317; headers belong into "
            "OTEL_EXPORTER_OTLP_HEADERS"
        )
    return parts.netloc, parts.scheme == "https"


def _pairs(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """Reads key=value,key=value, both percent-encoded."""
    found: dict[str, str] = {}
    for pair in filter(None, (one.strip() for one in environ.get(name, "").split(","))):
        key, separator, value = pair.partition("=")
        if not (separator and key.strip()):
            # The value may be a secret.
            raise SettingsError(f"{name} is not of the form key=value,key=value")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def _certificate(environ: Mapping[str, str]) -> bytes | None:
    path = environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE")
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_CERTIFICATE is {path}, which cannot be read: {error.strerror}"
        ) from error
