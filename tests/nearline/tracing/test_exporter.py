"""The way of spans to a collector, and what happens without one."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY

from nearline.errors import SettingsError
from nearline.tracing.spans import end_span, set_facts
from nearline.tracing.trace_context import format_traceparent
from nearline.tracing.tracer import BatchedSpans, SpanExporter, Tracer, endpoint_url, resource_of
from nearline_cli.local.certificates import CertificateAuthority
from tests.trace_collector import trace_collector
from tests.waits import until

LOGGER = "opentelemetry.exporter.otlp.proto.grpc.exporter"


@pytest.fixture(autouse=True)
def quick_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports after 0.1 s, and gives up on a batch after 1 s."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("nearline_trace_spans_total", {"outcome": outcome}) or 0.0


@contextlib.contextmanager
def exporter(endpoint: str, close_s: float = 2.0) -> Iterator[Tracer]:
    """Yields what begins spans that are sent to an endpoint."""
    processor = BatchedSpans(SpanExporter(endpoint))
    yield Tracer(0.0, processor, resource_of("nearline-test"), honoured_per_s=1e9)
    processor.close(close_s)


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """Returns a port that refuses connections: it is bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def spans(number: int, tracer: Tracer) -> None:
    for place in range(number):
        header = format_traceparent(f"{place + 1:032x}", "1" * 16, sampled=True)
        span = tracer.begin(f"s{place}", header, "SERVER")
        assert not isinstance(span, str)
        set_facts(span, {"k": 1, "share": 0.5, "name": "x", "yes": True})
        span.add_event("hedge")
        end_span(span, "NOT_FOUND" if place else "")


def test_spans_arrive_whole_and_those_that_wait_at_the_end_do_too() -> None:
    exported = count("exported")
    with trace_collector() as collector, exporter(collector.address) as one:
        spans(2_000, one)
    received = collector.spans
    assert [span.name for span in received] == [f"s{number}" for number in range(2_000)]
    assert count("exported") == exported + 2_000
    first, second = received[:2]
    assert first.attributes == {
        "nearline.k": 1,
        "nearline.share": 0.5,
        "nearline.name": "x",
        "nearline.yes": True,
    }
    assert (first.error, second.error, first.events) == ("", "NOT_FOUND", ["hedge"])
    assert (first.trace_id, first.parent_id, first.kind) == (f"{1:032x}", "1" * 16, 2)
    assert collector.resource["service.name"] == "nearline-test"
    assert collector.resource["service.version"]


def test_headers_and_resources_come_from_the_variables_of_opentelemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20abc, x-team=search")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    with trace_collector() as collector, exporter(f"http://{collector.address}") as one:
        spans(1, one)
    assert collector.metadata["authorization"] == "Bearer abc"
    assert collector.metadata["x-team"] == "search"
    assert collector.resource["service.name"] == "mine"
    assert collector.resource["deployment.environment"] == "test"


def test_https_encrypts_and_checks_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = authority.issue("collector", ("127.0.0.1",))
    pair = (key.read_bytes(), certificate.read_bytes())
    with trace_collector(grpc.ssl_server_credentials([pair])) as collector:
        failed = count("failed")
        with exporter(f"https://{collector.address}") as one:
            spans(1, one)
        assert count("failed") == failed + 1 and not collector.spans
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.file))
        with exporter(f"https://{collector.address}") as one:
            spans(1, one)
    assert len(collector.spans) == 1


async def test_without_a_collector_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    failed, start = count("failed"), time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        unused_port() as port,
        exporter(f"127.0.0.1:{port}") as one,
    ):
        spans(10_000, one)
        assert time.monotonic() - start < 8
        await until(lambda: count("failed") != failed, timeout_s=20)
        # Other batches fail at the end, which is not held up.
        start = time.monotonic()
    assert time.monotonic() - start < 4
    lines = [one.getMessage() for one in caplog.records if one.name == LOGGER]
    # At most one in 20 seconds: another test may have had it.
    assert len(lines) <= 1
    # On a busy machine the second of the batch may pass before the refusal of its connection.
    assert all(re.search(r"StatusCode\.(UNAVAILABLE|DEADLINE_EXCEEDED)", one) for one in lines), (
        lines
    )


async def test_a_collector_that_hangs_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    failed = count("failed")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with exporter(f"127.0.0.1:{silent.getsockname()[1]}", close_s=0.5) as one:
            spans(1_000, one)
            start = time.monotonic()
        assert time.monotonic() - start < 3
    await until(lambda: count("failed") != failed, timeout_s=20)
    assert not [one for one in caplog.records if one.exc_info]


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        ("localhost:4317", "http://localhost:4317"),
        ("http://10.0.0.1:4317/", "http://10.0.0.1:4317"),
        ("https://collector.example:443", "https://collector.example:443"),
        ("[::1]:4317", "http://[::1]:4317"),
    ],
)
def test_an_endpoint_is_an_address_or_a_url(endpoint: str, found: str) -> None:
    assert endpoint_url(endpoint) == found


@pytest.mark.parametrize(
    "endpoint",
    [
        *("collector", "grpc://a:1", "http://a:1/v1/traces", "a:b", "a:99999", ":1", "a b:1"),
        *("http://u:s3cret@a:1", "u:s3cret@a:1", "grpc://u:s3@cret@a:1"),
    ],
)
def test_another_endpoint_is_refused_with_an_example_and_without_its_password(
    endpoint: str,
) -> None:
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:4317") as failed:
        SpanExporter(endpoint)
    assert "cret" not in str(failed.value)


def test_a_bad_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")
    with pytest.raises(SettingsError, match=r"brotli.*correct the variables OTEL_\*"):
        SpanExporter("a:1")


def test_a_bad_header_is_logged_without_what_may_be_a_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")
    with exporter("127.0.0.1:1"):
        pass
    [line] = [one.getMessage() for one in caplog.records]
    assert "Header format invalid" in line and "s3cret" not in line
