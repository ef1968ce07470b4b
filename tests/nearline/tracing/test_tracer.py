"""Which calls are recorded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nearline.tracing.spans import Span, SpanKind, carried, carry, passed_on
from nearline.tracing.token_bucket import TokenBucket
from nearline.tracing.trace_context import SpanReference, format_traceparent, parse_traceparent
from nearline.tracing.tracer import (
    Tracer,
    begin_call,
    begin_request,
    begin_work,
    is_tracing,
    use_tracer,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = format_traceparent(TRACE, SPAN, sampled=True)


@pytest.fixture(autouse=True)
def nothing_is_traced() -> Iterator[None]:
    before = carried()
    yield
    use_tracer(None)
    carry(before)


def tracer(share: float, honoured_per_s: float = 1e9) -> Tracer:
    return Tracer(share, lambda span: None, honoured_per_s)


@pytest.mark.parametrize(("share", "recorded"), [(0.0, 0), (1.0, 1_000)])
def test_all_or_none_are_recorded_at_the_ends(share: float, recorded: int) -> None:
    one = tracer(share)
    assert sum(one.begin("call", None) is not None for _ in range(1_000)) == recorded


def test_a_share_of_the_calls_is_recorded() -> None:
    one = tracer(0.1)
    found = sum(one.begin("call", None) is not None for _ in range(20_000))
    # Six standard deviations: 42 each.
    assert abs(found - 2_000) < 255


def test_a_call_is_recorded_if_its_caller_records_it() -> None:
    span = tracer(0.0).begin("call", SAMPLED)
    assert span is not None
    assert (span.trace_id, span.parent_id, span.kind) == (TRACE, SPAN, SpanKind.SERVER)
    assert carried() is span


def test_a_call_is_not_recorded_if_its_caller_does_not_and_passes_that_on() -> None:
    header = format_traceparent(TRACE, SPAN, sampled=False)
    assert tracer(1.0).begin("call", header) is None
    assert passed_on() == header


def test_what_is_not_recorded_here_is_not_recorded_further_in() -> None:
    assert tracer(0.0).begin("call", None) is None
    outer = parse_traceparent(passed_on())
    assert outer is not None and not outer.sampled
    assert tracer(1.0).begin("inner", passed_on()) is None


@pytest.mark.parametrize(
    "header", ["", "nonsense", SAMPLED + "-", "x" * 100_000, b"\xff", SAMPLED * 9]
)
def test_a_header_that_is_not_valid_is_as_none(header: object) -> None:
    assert tracer(0.0).begin("call", header) is None
    span = tracer(1.0).begin("call", header)
    assert span is not None and span.trace_id != TRACE and span.parent_id == ""


def test_callers_cannot_have_everything_recorded() -> None:
    one = tracer(0.0, honoured_per_s=50)
    found = [one.begin("call", SAMPLED) for _ in range(5_000)]
    # What is refused is passed on as not recorded, so that the services behind do the same.
    assert 50 <= sum(span is not None for span in found) < 100
    assert passed_on() == format_traceparent(TRACE, SPAN, sampled=False)
    assert all(tracer(1.0, 0).begin("call", SAMPLED) for _ in range(100)), (
        "the operator's own share"
    )


def test_a_bucket_refills_at_its_rate_and_holds_no_more_than_a_second() -> None:
    now = 0.0
    bucket = TokenBucket(10, lambda: now)
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]
    now = 0.35
    assert [bucket.take() for _ in range(4)] == [True] * 3 + [False]
    now = 1_000.0
    assert sum(bucket.take() for _ in range(100)) == 10


def test_work_from_a_queue_belongs_to_the_first_trace_and_names_the_others() -> None:
    use_tracer(tracer(0.0))
    other = format_traceparent("1" * 32, "2" * 16, sampled=True)
    span = begin_work("batch", ["nonsense", SAMPLED, SAMPLED, other])
    assert span is not None
    assert (span.trace_id, span.parent_id, span.kind) == (TRACE, SPAN, SpanKind.CONSUMER)
    assert span.links == [SpanReference("1" * 32, "2" * 16, True)]
    assert begin_work("batch", []) is None


def test_without_a_tracer_nobody_looks_at_metadata() -> None:
    def metadata() -> list[tuple[str, str]]:
        raise AssertionError("not to be read")

    assert not is_tracing()
    assert begin_call("a/B", metadata) is None
    assert begin_request("GET", SAMPLED) is None
    assert begin_work("batch", [SAMPLED]) is None
    assert carried() is None
    use_tracer(tracer(0.0))
    found = begin_call("a/B", lambda: (("x", "y"), ("traceparent", SAMPLED)))
    assert isinstance(found, Span) and is_tracing()
