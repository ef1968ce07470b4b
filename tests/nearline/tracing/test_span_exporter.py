"""The way of spans to a collector, and what happens without one."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY

from nearline.errors import SettingsError
from nearline.tracing.span_exporter import MAX_WAITING, SpanExporter, endpoint_url
from nearline.tracing.spans import Span, SpanKind
from nearline.tracing.trace_context import SpanReference
from nearline_cli.local.certificates import CertificateAuthority
from tests.trace_collector import ReceivedSpan, trace_collector

LOGGER = "opentelemetry.exporter.otlp.proto.grpc.exporter"


@pytest.fixture(autouse=True)
def quick_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports after 0.1 s, and gives up on a batch after 1 s."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("nearline_trace_spans_total", {"outcome": outcome}) or 0.0


@contextlib.contextmanager
def exporter(endpoint: str) -> Iterator[SpanExporter]:
    found = SpanExporter(endpoint, "nearline-test")
    try:
        yield found
    finally:
        found.close(2.0)


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """Returns a port that refuses connections: it is bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def spans(number: int, finish: Callable[[Span], None]) -> None:
    for place in range(number):
        span = Span.begin(f"s{place}", SpanKind.SERVER, f"{place + 1:032x}", "", finish)
        span.set({"k": 1, "share": 0.5, "name": "x", "yes": True})
        span.event("hedge", {"replica": "r"})
        span.end("NOT_FOUND" if place else "")


def has(number: int, received: list[ReceivedSpan]) -> bool:
    return len(received) == number


def until_failed(before: float) -> None:
    deadline = time.monotonic() + 20
    while count("failed") == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_spans_arrive_whole_and_those_that_wait_at_the_end_do_too() -> None:
    exported = count("exported")
    with trace_collector() as collector, exporter(collector.address) as one:
        spans(2_000, one.add)
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
    assert (first.trace_id, first.parent_id, first.kind) == (f"{1:032x}", "", 2)
    assert collector.resource["service.name"] == "nearline-test"
    assert collector.resource["service.version"]


def test_spans_that_were_sent_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # None may be lost, however busy the machine is.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")
    exported, dropped = count("exported"), count("dropped")
    with trace_collector() as collector, exporter(collector.address) as one:
        for sent in (6_000, 12_000):
            spans(6_000, one.add)
            collector.wait_for(partial(has, sent))
    assert sent > MAX_WAITING
    assert count("exported") - exported == sent
    assert count("dropped") == dropped


@pytest.mark.parametrize(
    ("kind", "number"),
    [(SpanKind.INTERNAL, 1), (SpanKind.SERVER, 2), (SpanKind.CLIENT, 3), (SpanKind.CONSUMER, 5)],
)
def test_ids_kinds_times_and_links_arrive_as_they_are(kind: SpanKind, number: int) -> None:
    # With zeros in front, which a number does not keep.
    trace_id, span_id, other = "000b" * 8, "00f0" * 4, "00a0" * 8
    with trace_collector() as collector, exporter(collector.address) as one:
        root = Span.begin("call", SpanKind.SERVER, trace_id, span_id, one.add)
        part = root.child("part", kind, start_ns=1_000)
        assert part is not None
        part.link([SpanReference(other, "1" * 16, True)])
        part.end(end_ns=5_000)
        root.end()
    received, whole = collector.spans
    assert (received.trace_id, received.span_id) == (trace_id, part.span_id)
    assert (received.parent_id, whole.parent_id) == (root.span_id, span_id)
    assert (received.kind, received.start_ns, received.end_ns) == (number, 1_000, 5_000)
    assert received.links == [other]


def test_headers_and_resources_come_from_the_variables_of_opentelemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20abc, x-team=search")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    with trace_collector() as collector, exporter(f"http://{collector.address}") as one:
        spans(1, one.add)
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
            spans(1, one.add)
        assert count("failed") == failed + 1 and not collector.spans
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.file))
        with exporter(f"https://{collector.address}") as one:
            spans(1, one.add)
    assert len(collector.spans) == 1


def test_without_a_collector_spans_are_dropped_and_nobody_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed, dropped = count("failed"), count("dropped")
    start = time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        unused_port() as port,
        exporter(f"127.0.0.1:{port}") as one,
    ):
        spans(3 * MAX_WAITING, one.add)
        assert time.monotonic() - start < 5
        assert count("dropped") - dropped >= MAX_WAITING
        until_failed(failed)
        until_failed(count("failed"))
        # Other batches fail at the end, which is not held up.
        start = time.monotonic()
    assert time.monotonic() - start < 4
    lost = count("failed") - failed + count("dropped") - dropped
    assert lost == 3 * MAX_WAITING
    lines = [one.getMessage() for one in caplog.records if one.name.startswith("opentelemetry")]
    # At most one in a minute: another test may have had it.
    assert len(lines) <= 1
    # On a busy machine the second of the batch may pass before the refusal of its connection.
    assert all(re.search(r"StatusCode\.(UNAVAILABLE|DEADLINE_EXCEEDED)", one) for one in lines), (
        lines
    )


def test_a_failure_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic() + 1_000
    with unused_port() as port, exporter(f"127.0.0.1:{port}"):
        pass
    with monkeypatch.context() as clock:
        clock.setattr(time, "monotonic", lambda: now)
        # The SDK lets no line pass twice in 20 seconds.
        clock.setattr(time, "time", lambda: now)
        for number, passed_s in enumerate([0, 59, 21, 1]):
            now += passed_s
            logging.getLogger(LOGGER).warning("not worth a line")
            logging.getLogger(LOGGER).error("Failed to export %s", number)
    assert [one.getMessage() for one in caplog.records if one.name == LOGGER] == [
        "Failed to export 0",
        "Failed to export 2",
    ]


def test_messages_with_values_are_one_kind_and_take_no_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with unused_port() as port, exporter(f"127.0.0.1:{port}"):
        pass
    for number in range(1_000):
        message = f"batch {number} failed"
        logging.getLogger(LOGGER).error(message)
    assert [one.getMessage() for one in caplog.records if one.name == LOGGER] == ["batch 0 failed"]


def test_a_collector_that_hangs_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    failed, before = count("failed"), threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = SpanExporter(f"127.0.0.1:{silent.getsockname()[1]}", "nearline-test")
        spans(1_000, one.add)
        start = time.monotonic()
        one.close(0.5)
        assert time.monotonic() - start < 3
    assert count("failed") == failed + 1_000
    assert threading.active_count() == before
    assert not [one for one in caplog.records if one.exc_info]


def test_spans_that_end_after_the_exporter_are_dropped() -> None:
    with trace_collector() as collector, exporter(collector.address) as one:
        pass
    dropped = count("dropped")
    spans(3, one.add)
    assert count("dropped") == dropped + 3


def test_a_collector_that_comes_back_gets_what_is_recorded_then() -> None:
    with unused_port() as port:
        pass
    with exporter(f"127.0.0.1:{port}") as one:
        failed = count("failed")
        spans(1, one.add)
        until_failed(failed)
        with trace_collector(port=port) as collector:
            deadline = time.monotonic() + 30
            # What is recorded until gRPC has connected again is lost, too.
            while not collector.spans:
                assert time.monotonic() < deadline
                spans(1, one.add)
                time.sleep(0.1)


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
        SpanExporter(endpoint, "nearline-test")
    assert "cret" not in str(failed.value)


def test_a_bad_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")
    with pytest.raises(SettingsError, match=r"brotli.*correct the variables OTEL_\*"):
        SpanExporter("a:1", "nearline-test")


def test_a_bad_header_is_logged_without_what_may_be_a_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")
    with exporter("127.0.0.1:1"):
        pass
    [line] = [one.getMessage() for one in caplog.records]
    assert "Header format invalid" in line and "s3cret" not in line
