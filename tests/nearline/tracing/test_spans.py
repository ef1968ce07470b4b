"""Spans of the call that runs now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from nearline.tracing.spans import (
    MAX_SPANS,
    Span,
    SpanKind,
    carried,
    carry,
    carry_one_of,
    current_span,
    note,
    note_event,
    passed_on,
    stage,
)
from nearline.tracing.trace_context import new_trace_id


@pytest.fixture(autouse=True)
def nothing_is_carried() -> Iterator[None]:
    before = carried()
    yield
    carry(before)


def begin(ended: list[Span], name: str = "call") -> Span:
    span = Span.begin(name, SpanKind.SERVER, new_trace_id(), "", ended.append)
    carry(span)
    return span


def test_a_stage_is_a_part_of_the_call_and_what_it_does_is_a_part_of_the_stage() -> None:
    ended: list[Span] = []
    call = begin(ended)
    with stage("outer") as outer, stage("inner") as inner:
        assert current_span() is inner
    assert outer is not None and inner is not None
    assert (inner.parent_id, outer.parent_id) == (outer.span_id, call.span_id)
    assert current_span() is call
    assert ended == [inner, outer]
    assert call.start_ns <= outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns


def test_an_error_ends_a_stage_under_its_name_alone_since_its_text_may_be_personal() -> None:
    ended: list[Span] = []
    begin(ended)
    with pytest.raises(ValueError), stage("part"):
        raise ValueError("a text of somebody")
    assert ended[0].error == "ValueError"


def test_a_call_that_is_not_recorded_has_no_stages() -> None:
    for nothing in (None, "00-1-1-00"):
        carry(nothing)
        with stage("part") as span:
            assert span is None
        note({"k": 1})
        note_event("hedge", {})
        assert current_span() is None
        assert passed_on() == nothing


def test_a_task_that_outlives_its_call_adds_nothing_to_it() -> None:
    ended: list[Span] = []
    call = begin(ended)
    call.end()
    with stage("later") as span:
        assert span is None
    assert passed_on() is None
    call.end("again")
    assert ended == [call] and call.error == ""


def test_a_call_of_many_parts_keeps_the_first_and_says_so() -> None:
    ended: list[Span] = []
    call = begin(ended)
    for _ in range(2 * MAX_SPANS):
        with stage("part"):
            pass
    for _ in range(1_000):
        note_event("happened", {"text": "x" * 1_000})
    call.end()
    assert len(ended) == MAX_SPANS
    assert call.attributes == {"nearline.spans_left_out": True}
    assert len(call.events) == 32
    assert all(len(str(found["nearline.text"])) == 256 for _, _, found in call.events)


def test_a_measured_part_lies_where_it_was() -> None:
    ended: list[Span] = []
    call = begin(ended)
    now = time.time_ns()
    call.record("queue", 0.25, before_s=0.5)
    part = ended[0]
    assert part.end_ns - part.start_ns == 250_000_000
    assert abs(now - part.end_ns - 500_000_000) < 100_000_000


def test_notes_are_attributes_of_the_whole_call() -> None:
    call = begin([])
    with stage("part"):
        note({"snapshot": "s1"})
    assert call.attributes == {"nearline.snapshot": "s1"}


async def test_work_for_several_calls_is_a_part_of_the_first_recorded_one() -> None:
    ended: list[Span] = []
    first, second = begin(ended, "first"), begin(ended, "second")

    async def work(*calls: Span | str | None) -> tuple[Span | None, str | None]:
        return carry_one_of(calls, "batch"), passed_on()

    carry(second)
    part, header = await asyncio.create_task(work("00-1-1-00", first, None, second))
    assert part is not None and part.parent_id == first.span_id
    assert header == part.traceparent
    assert part.links == [second.reference]
    # A task that one call has started works for others, none of which is recorded.
    first.end()
    assert await asyncio.create_task(work(None, "00-1-1-00", first)) == (None, "00-1-1-00")
    assert await asyncio.create_task(work(None)) == (None, None)
    assert current_span() is second
