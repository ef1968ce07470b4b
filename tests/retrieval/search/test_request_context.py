"""Deadlines of requests, and the state of the shards that they asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from nearline.contract import ServedBy, Source
from nearline.errors import InvalidRequest, NotReady, SnapshotMismatch
from nearline.filters import In
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext, context_factory

SERVED = cast(
    ServedCollection,
    SimpleNamespace(name="news", snapshot_id="s1", attribute_kinds={"of": "string", "year": "int"}),
)


def mark(first: int, second: int = 0, log_id: str = "log") -> Watermark:
    return Watermark(log_id, (first, second, *[0] * 62))


@pytest.mark.parametrize(
    ("timeout_s", "wait_s"), [(0.01, 0.009), (0.1, 0.09), (0.2, 0.18), (1.0, 0.98), (60.0, 59.98)]
)
async def test_a_tenth_of_the_time_but_at_most_20_ms_is_kept_for_the_reply(
    timeout_s: float, wait_s: float
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    deadline = context_factory(timeout_s, b"")(SERVED).deadline
    assert deadline is not None
    assert before + wait_s <= deadline + 1e-9 and deadline <= loop.time() + wait_s + 1e-9


async def test_a_request_that_is_repeated_keeps_its_deadline_and_watermark_only() -> None:
    new_context = context_factory(1.0, mark(3).encode())
    first = new_context(SERVED)
    first.failures[2] = NotReady("gone")
    first.record_applied(0, [AppliedState(mark(3))])
    again = new_context(SERVED)
    assert again.deadline == first.deadline
    assert again.min_watermark == first.min_watermark == mark(3)
    assert not again.failures and not again.applied


async def test_a_request_without_a_time_or_a_watermark_has_no_limits() -> None:
    assert context_factory(None, b"")(SERVED) == RequestContext(None, None)
    assert context_factory(None, mark(1).encode())(SERVED) == RequestContext(None, mark(1))


async def test_bytes_that_are_no_watermark_are_refused_with_their_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        context_factory(1.0, b"forged", field="options.min_watermark")
    assert caught.value.field == "options.min_watermark"


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [("readers", "it has no such attribute"), ("year", "it is of kind int")],
)
def test_a_collection_that_does_not_say_who_may_read_its_items_shows_them_to_no_tenant(
    attribute: str, problem: str
) -> None:
    named = context_factory(None, b"", In("of", ("tenant:a",)))(SERVED)
    assert named.visible == In("of", ("tenant:a",))
    with pytest.raises(SnapshotMismatch, match=problem) as caught:
        context_factory(None, b"", In(attribute, ("tenant:a",)))(SERVED)
    for told in (
        "'news'",
        f"{attribute!r}",
        "readers_attribute",
        f"--attribute {attribute}:string",
    ):
        assert told in caught.value.message


def test_of_several_answers_of_a_shard_the_oldest_state_counts() -> None:
    context = RequestContext()
    context.record_applied(0, [None])
    assert not context.applied and context.watermark == b"" and context.served_by == ServedBy()
    context.record_applied(0, [AppliedState(mark(5, 2)), None, AppliedState(mark(4, 3))])
    assert context.applied[0].watermark == mark(4, 2)
    context.record_applied(0, [AppliedState(mark(3, 9))])
    assert context.applied[0].watermark == mark(3, 2)
    # While the log changes, the first one counts.
    context.record_applied(0, [AppliedState(mark(1, 1, "next"))])
    assert context.applied[0].watermark == mark(3, 2)


def test_an_answer_has_reached_what_each_shard_has_of_its_own_partitions() -> None:
    context = RequestContext()
    context.record_applied(0, [AppliedState(mark(5, 0))])
    context.record_applied(1, [AppliedState(mark(0, 7))])
    assert context.watermark == mark(5, 7).encode()
    assert context.served_by == ServedBy()


def test_an_answer_is_stale_for_each_reason_of_a_shard_once() -> None:
    context = RequestContext()
    for shard, reason in enumerate(["Redis is away", "", "it is slow", "Redis is away"]):
        context.record_applied(shard, [AppliedState(mark(shard), reason)])
    assert context.served_by == ServedBy(
        source=Source.FALLBACK, rung="stale", reason="Redis is away; it is slow"
    )


def test_an_answer_names_the_worst_of_its_fallbacks_and_all_reasons() -> None:
    context = RequestContext(fallbacks={"cuda:0: it hangs": None})
    assert context.served_by == ServedBy(
        source=Source.FALLBACK, rung="cpu", reason="cuda:0: it hangs"
    )
    context.reduced = "overloaded"
    assert context.served_by.rung == "reduced"
    context.record_applied(0, [AppliedState(mark(0), "Redis is away")])
    assert context.served_by == ServedBy(
        source=Source.FALLBACK, rung="stale", reason="Redis is away; overloaded; cuda:0: it hangs"
    )


@pytest.mark.parametrize("reasons", [("", "away"), ("away", "")])
def test_a_shard_that_was_stale_once_makes_the_answer_stale(reasons: tuple[str, str]) -> None:
    context = RequestContext()
    for reason in reasons:
        context.record_applied(0, [AppliedState(mark(1), reason)])
    assert context.served_by.reason == "away"
