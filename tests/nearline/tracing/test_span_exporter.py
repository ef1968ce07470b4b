"""The way of spans to a collector, and what happens without one."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY

from nearline.errors import SettingsError
from nearline.tracing.span_exporter import MAX_WAITING, SpanExporter, parse_endpoint
from nearline.tracing.spans import Span, SpanKind
from nearline_cli.local.certificates import CertificateAuthority
from tests.trace_collector import trace_collector

LOGGER = "nearline.tracing.span_exporter"


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("nearline_trace_spans_total", {"outcome": outcome}) or 0.0


@contextlib.contextmanager
def exporter(endpoint: str, environ: dict[str, str] | None = None) -> Iterator[SpanExporter]:
    found = SpanExporter(endpoint, "nearline-test", environ or {})
    try:
        yield found
    finally:
        found.close(2.0)


def spans(number: int, finish: Callable[[Span], None]) -> None:
    for place in range(number):
        span = Span.begin(f"s{place}", SpanKind.SERVER, f"{place + 1:032x}", "", finish)
        span.set({"k": 1, "share": 0.5, "name": "x", "yes": True})
        span.event("hedge", {"replica": "r"})
        span.end("NOT_FOUND" if place else "")


def until_failed(before: float) -> None:
    deadline = time.monotonic() + 20
    while count("failed") == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_spans_arrive_whole_and_those_that_wait_at_the_end_do_too() -> None:
    with trace_collector() as collector, exporter(collector.address) as one:
        spans(2_000, one.add)
    received = collector.spans
    assert [span.name for span in received] == [f"s{number}" for number in range(2_000)]
    first, second = received[:2]
    assert first.attributes == {
        "nearline.k": 1,
        "nearline.share": 0.5,
        "nearline.name": "x",
        "nearline.yes": True,
    }
    assert (first.error, second.error, first.events) == ("", "NOT_FOUND", ["hedge"])
    assert (first.trace_id, first.parent_id, first.kind) == (f"{1:032x}", "", 2)
    assert collector.resource["service.name"] == "nearline-test"
    assert collector.resource["service.version"]


def test_headers_and_resources_come_from_the_variables_of_opentelemetry() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20abc, x-team=search",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        "OTEL_SERVICE_NAME": "mine",
    }
    with trace_collector() as collector, exporter(f"http://{collector.address}", environ) as one:
        spans(1, one.add)
    assert collector.metadata["authorization"] == "Bearer abc"
    assert collector.metadata["x-team"] == "search"
    assert collector.resource["service.name"] == "mine"
    assert collector.resource["deployment.environment"] == "test"


def test_https_encrypts_and_checks_the_certificate(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = authority.issue("collector", ("127.0.0.1",))
    pair = (key.read_bytes(), certificate.read_bytes())
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.file)}
    with trace_collector(grpc.ssl_server_credentials([pair])) as collector:
        failed = count("failed")
        with exporter(f"https://{collector.address}") as one:
            spans(1, one.add)
        assert count("failed") == failed + 1 and not collector.spans
        with exporter(f"https://{collector.address}", trusted) as one:
            spans(1, one.add)
    assert len(collector.spans) == 1


def test_without_a_collector_spans_are_dropped_and_nobody_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        # Bound and not listening: connections are refused.
        taken.bind(("127.0.0.1", 0))
        failed, dropped = count("failed"), count("dropped")
        start = time.monotonic()
        with (
            caplog.at_level(logging.WARNING),
            exporter(f"127.0.0.1:{taken.getsockname()[1]}") as one,
        ):
            spans(3 * MAX_WAITING, one.add)
            assert time.monotonic() - start < 5
            assert count("dropped") - dropped >= MAX_WAITING
            until_failed(failed)
            # Another batch fails at the end, which is not held up.
            start = time.monotonic()
        assert time.monotonic() - start < 4
    lost = count("failed") - failed + count("dropped") - dropped
    assert lost == 3 * MAX_WAITING
    lines = [one for one in caplog.records if one.name == LOGGER]
    assert len(lines) == 1, "at most one line in a minute"


def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = SpanExporter(f"127.0.0.1:{silent.getsockname()[1]}", "nearline-test", {})
        spans(10, one.add)
        start = time.monotonic()
        one.close(0.5)
        assert time.monotonic() - start < 3


def test_a_collector_that_comes_back_gets_what_is_recorded_then() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with exporter(f"127.0.0.1:{port}") as one:
        failed = count("failed")
        spans(1, one.add)
        until_failed(failed)
        with trace_collector(port=port) as collector:
            spans(2, one.add)
            collector.wait_for(lambda found: len(found) == 2, 30)


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        ("localhost:4317", ("localhost:4317", False)),
        ("http://10.0.0.1:4317/", ("10.0.0.1:4317", False)),
        ("https://collector.example:443", ("collector.example:443", True)),
        ("[::1]:4317", ("[::1]:4317", False)),
    ],
)
def test_an_endpoint_is_an_address_or_a_url(endpoint: str, found: tuple[str, bool]) -> None:
    assert parse_endpoint(endpoint) == found


@pytest.mark.parametrize(
    "endpoint",
    ["collector", "grpc://a:1", "http://a:1/v1/traces", "a:b", "http://u:p@a:1", "a:99999", ":1"],
)
def test_another_endpoint_is_refused_with_an_example(endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:4317"):
        SpanExporter(endpoint, "nearline-test", {})


def test_a_bad_variable_is_refused_without_showing_what_may_be_a_secret() -> None:
    for name, value, message in (
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret", "OTEL_EXPORTER_OTLP_HEADERS is not of the form"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem", "cannot be read"),
    ):
        with pytest.raises(SettingsError, match=message) as caught:
            SpanExporter("https://a:1", "nearline-test", {name: value})
        assert "s3cret" not in str(caught.value)
