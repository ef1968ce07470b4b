"""Which calls are recorded, and the spans of the call that runs now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from nearline.tracing.spans import (
    Carried,
    begin_call,
    begin_request,
    begin_work,
    carried,
    carry,
    carry_one_of,
    current_span,
    end_span,
    is_tracing,
    note,
    note_event,
    passed_on,
    record_part,
    stage,
    trace_id_of,
    traceparent_of,
)
from nearline.tracing.token_bucket import TokenBucket
from nearline.tracing.trace_context import format_traceparent, parse_traceparent
from tests.nearline.tracing.recorded_spans import SAMPLED, SPAN, TRACE, recording

UNSAMPLED = format_traceparent(TRACE, SPAN, sampled=False)


@pytest.fixture
def ended() -> Iterator[InMemorySpanExporter]:
    """Records the calls that their callers record."""
    with recording() as found:
        yield found


def begun(header: str | None = SAMPLED) -> bool:
    return begin_request("call", header) is not None


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0, 0, 0), (1, 2_000, 2_000), (0.1, 110, 290)]
)
def test_a_share_of_the_calls_is_recorded(share: float, least: int, most: int) -> None:
    with recording(share):
        # Within seven standard deviations.
        assert least <= sum(begun(None) for _ in range(2_000)) <= most


def test_a_call_is_recorded_if_its_caller_records_it(ended: InMemorySpanExporter) -> None:
    metadata = (("x", "y"), ("traceparent", SAMPLED))
    span = begin_call("a/B", lambda: metadata)
    assert span is not None and carried() is span and trace_id_of(span) == TRACE
    end_span(span)
    [found] = ended.get_finished_spans()
    assert (found.name, found.kind) == ("a/B", SpanKind.SERVER)
    assert found.parent is not None and f"{found.parent.span_id:016x}" == SPAN


def test_what_is_not_recorded_here_is_not_recorded_further_in() -> None:
    with recording():
        assert not begun(None)
        outer = passed_on()
        assert outer is not None and outer.endswith("-00")
    with recording(1.0):
        assert not begun(outer) and not begun(UNSAMPLED)
        assert passed_on() == UNSAMPLED


@pytest.mark.parametrize(
    "header",
    [
        *("", "00", "nonsense", SAMPLED + "-", SAMPLED + "\n", " " + SAMPLED, SAMPLED * 9),
        *(f"ff{SAMPLED[2:]}", SAMPLED.upper(), SAMPLED[:-1], SAMPLED.encode(), None, 7),
        *(SAMPLED.replace(TRACE, "0" * 32), SAMPLED.replace(SPAN, "0" * 16)),
        *(SAMPLED.replace(TRACE, TRACE[:-1] + "\u0661"), f"01{SAMPLED[2:]}-{'x' * 10_000}"),
    ],
)
def test_a_header_that_is_not_valid_is_as_none(header: str) -> None:
    assert parse_traceparent(header) is None
    with recording():
        assert not begun(header)
    with recording(1.0) as ended:
        span = begin_request("call", header)
        assert span is not None and trace_id_of(span) != TRACE
        end_span(span)
        assert ended.get_finished_spans()[0].parent is None


def test_the_flags_are_bits_and_later_versions_may_say_more() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-03") == (TRACE, SPAN, True)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-02") == (TRACE, SPAN, False)
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-comes-later") == (TRACE, SPAN, True)


@given(st.text(max_size=80))
def test_no_text_is_an_error(text: str) -> None:
    parse_traceparent(text)


def test_callers_cannot_have_everything_recorded() -> None:
    with recording(honoured_per_s=50):
        assert 50 <= sum(begun() for _ in range(2_000)) < 150
        # What is refused is passed on as not recorded, so that the services behind do the same.
        assert passed_on() == UNSAMPLED
    with recording(1.0, honoured_per_s=0):
        assert all(begun() for _ in range(100)), "the operator's own share"


def test_a_bucket_refills_at_its_rate_and_holds_no_more_than_a_second() -> None:
    now = 0.0
    bucket = TokenBucket(10, lambda: now)
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]
    now = 0.35
    assert [bucket.take() for _ in range(4)] == [True] * 3 + [False]
    now = 1_000.0
    assert sum(bucket.take() for _ in range(100)) == 10


def test_work_from_a_queue_belongs_to_the_first_trace_and_names_the_others(
    ended: InMemorySpanExporter,
) -> None:
    other = format_traceparent("1" * 32, "2" * 16, sampled=True)
    span = begin_work("batch", ["nonsense", SAMPLED, SAMPLED, other])
    assert span is not None and trace_id_of(span) == TRACE
    end_span(span)
    [found] = ended.get_finished_spans()
    assert found.kind is SpanKind.CONSUMER
    assert [f"{one.context.trace_id:032x}" for one in found.links] == ["1" * 32]
    assert begin_work("batch", []) is None


def test_without_a_tracer_nobody_looks_at_metadata() -> None:
    def metadata() -> list[tuple[str, str]]:
        raise AssertionError("not to be read")

    carry(None)
    assert not is_tracing()
    assert begin_call("a/B", metadata) is None
    assert begin_request("GET", SAMPLED) is None
    assert begin_work("batch", [SAMPLED]) is None
    assert carried() is None


def test_a_stage_is_a_part_of_the_call_and_what_it_does_is_a_part_of_the_stage(
    ended: InMemorySpanExporter,
) -> None:
    call = begin_request("call", SAMPLED)
    with stage("outer") as outer, stage("inner") as inner:
        assert current_span() is inner
        note({"snapshot": "s1"})
        note_event("hedge", {"replica": "r" * 1_000})
    assert call is not None and outer is not None and current_span() is call
    found, outside = ended.get_finished_spans()
    assert found.parent == outer.get_span_context() and outside.parent == call.get_span_context()
    assert found.attributes == {"nearline.snapshot": "s1"}
    [event] = found.events
    assert (event.name, event.attributes) == ("hedge", {"nearline.replica": "r" * 256})


def test_an_error_ends_a_stage_under_its_name_alone_since_its_text_may_be_personal(
    ended: InMemorySpanExporter,
) -> None:
    assert begun()
    with pytest.raises(ValueError), stage("part"):
        raise ValueError("a text of somebody")
    [found] = ended.get_finished_spans()
    assert found.status.description == "ValueError" and not found.events


@pytest.mark.parametrize("nothing", [None, UNSAMPLED])
def test_a_call_that_is_not_recorded_has_no_stages(nothing: str | None) -> None:
    carry(nothing)
    with stage("part") as span:
        assert span is None
    note({"k": 1})
    note_event("hedge", {})
    assert current_span() is None
    assert passed_on() == nothing
    carry(None)


def test_a_task_that_outlives_its_call_adds_nothing_to_it(ended: InMemorySpanExporter) -> None:
    call = begin_request("call", SAMPLED)
    assert call is not None
    end_span(call)
    with stage("later") as span:
        assert span is None
    assert passed_on() is None
    end_span(call, "again")
    [found] = ended.get_finished_spans()
    assert found.status.description is None


def test_a_measured_part_lies_where_it_was(ended: InMemorySpanExporter) -> None:
    call = begin_request("call", SAMPLED)
    assert call is not None
    now = time.time_ns()
    record_part(call, "queue", 0.25, before_s=0.5)
    [part] = ended.get_finished_spans()
    assert part.start_time is not None and part.end_time is not None
    assert part.end_time - part.start_time == 250_000_000
    assert abs(now - part.end_time - 500_000_000) < 100_000_000


async def test_work_for_several_calls_is_a_part_of_the_first_recorded_one(
    ended: InMemorySpanExporter,
) -> None:
    first, second = begin_request("first", SAMPLED), begin_request("second", SAMPLED)
    assert first is not None and second is not None

    async def work(*calls: Carried) -> tuple[str | None, str | None]:
        part = carry_one_of(calls, "batch")
        if part is None:
            return None, passed_on()
        header = passed_on()
        assert header == traceparent_of(part)
        end_span(part)
        return trace_id_of(part), header

    await asyncio.create_task(work(UNSAMPLED, first, None, second))
    [batch] = ended.get_finished_spans()
    assert batch.parent == first.get_span_context()
    assert [one.context for one in batch.links] == [second.get_span_context()]
    # A task that one call has started works for others, none of which is recorded.
    end_span(first)
    assert await asyncio.create_task(work(None, UNSAMPLED, first)) == (None, UNSAMPLED)
    assert await asyncio.create_task(work(None)) == (None, None)
    assert current_span() is second
