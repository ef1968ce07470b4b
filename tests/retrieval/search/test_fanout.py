"""Calls to several shards end together with the request."""

from __future__ import annotations

import asyncio

import pytest

from nearline.errors import (
    DeadlineExceeded,
    NearlineError,
    NotApplied,
    NotReady,
    Overloaded,
    ShardsUnavailable,
    SnapshotGone,
    Unsupported,
)
from retrieval.protocols.shard import ShardItems
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.search import fanout
from retrieval.search.request_context import RequestContext


def pending(count: int) -> dict[int, asyncio.Future[str]]:
    loop = asyncio.get_running_loop()
    return {number: loop.create_future() for number in range(count)}


async def test_a_request_that_is_cancelled_cancels_the_calls_to_all_shards() -> None:
    calls = pending(3)
    request = asyncio.ensure_future(fanout.gather(calls, None, collection="default", full=False))
    # The request now waits for the first call.
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert all(call.cancelled() for call in calls.values())


async def test_at_the_deadline_all_late_calls_are_cancelled_and_answers_are_returned() -> None:
    calls = pending(4)
    calls[1].set_result("answer")
    calls[3].set_exception(NotReady("gone"))
    now = asyncio.get_running_loop().time()
    found = await fanout.gather(calls, now, collection="default", full=False)
    assert found.results == {1: "answer"}
    assert {number: type(error) for number, error in found.failures.items()} == {
        0: DeadlineExceeded,
        2: DeadlineExceeded,
        3: NotReady,
    }
    assert calls[0].cancelled() and calls[2].cancelled()


@pytest.mark.parametrize("full", [False, True])
async def test_one_lost_shard_fails_a_request_for_full_coverage_only(full: bool) -> None:
    calls = pending(2)
    calls[0].set_result("answer")
    calls[1].set_exception(NotReady("gone"))
    if not full:
        found = await fanout.gather(calls, None, collection="default", full=False)
        assert found.results == {0: "answer"}
        return
    with pytest.raises(ShardsUnavailable, match=r"1 of 2 shards of 'default'.*shard 1: gone"):
        await fanout.gather(calls, None, collection="default", full=True)


OVERLOADED = [Overloaded("full", retry_after_s=one) for one in (0.5, 2.0, None)]


@pytest.mark.parametrize(
    ("errors", "expected", "advice"),
    [
        ([DeadlineExceeded("late")] * 2, DeadlineExceeded("", retry_after_s=None), "the timeout"),
        ([SnapshotGone("newer")] * 2, SnapshotGone(""), "retry the whole request"),
        (OVERLOADED, Overloaded("", retry_after_s=2.0), "retry later"),
        (
            [NotApplied("behind", retry_after_s=0.25), NotApplied("behind", retry_after_s=0.125)],
            NotApplied("", retry_after_s=0.25),
            "omit min_watermark",
        ),
        (
            [DeadlineExceeded("late"), SnapshotGone("newer")],
            ShardsUnavailable(""),
            "until `nearline status` shows them ready",
        ),
        ([OVERLOADED[1], NotReady("gone")], ShardsUnavailable("", retry_after_s=2.0), "wait until"),
        (
            [NotReady("gone"), NotReady("reset", peer_died=True)],
            ShardsUnavailable("", peer_died=True),
            "wait until",
        ),
    ],
)
async def test_the_error_of_a_request_that_no_shard_answers_follows_from_theirs(
    errors: list[NearlineError], expected: NearlineError, advice: str
) -> None:
    calls = pending(len(errors))
    for call, error in zip(calls.values(), errors, strict=True):
        call.set_exception(error)
    with fanout.tolerate_missing_snapshot(), pytest.raises(type(expected)) as caught:
        await fanout.gather(calls, None, collection="default", full=False)
    error = caught.value
    assert type(error) is type(expected)
    assert (error.retry_after_s, error.peer_died) == (expected.retry_after_s, expected.peer_died)
    assert advice in error.message and f"shard 1: {errors[1].message}" in error.message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Overloaded("full", retry_after_s=2.0), ShardsUnavailable),
        (DeadlineExceeded("late"), ShardsUnavailable),
        (NotApplied("behind"), NotApplied),
    ],
)
async def test_a_request_for_full_coverage_that_some_shards_answered_names_the_others(
    error: NearlineError, expected: type[NearlineError]
) -> None:
    calls = pending(2)
    calls[0].set_exception(error)
    calls[1].set_result("answer")
    with pytest.raises(expected, match="1 of 2 shards") as caught:
        await fanout.gather(calls, None, collection="default", full=True)
    assert type(caught.value) is expected


async def test_a_released_snapshot_fails_the_request_unless_that_is_tolerated() -> None:
    calls = pending(2)
    calls[0].set_result("answer")
    calls[1].set_exception(SnapshotGone("newer"))
    with pytest.raises(SnapshotGone, match=r"^newer"):
        await fanout.gather(calls, None, collection="default", full=False)
    with fanout.tolerate_missing_snapshot():
        found = await fanout.gather(calls, None, collection="default", full=False)
    assert found.results == {0: "answer"} and list(found.failures) == [1]


async def test_an_error_that_every_shard_would_have_is_raised_as_it_is() -> None:
    calls = pending(3)
    calls[0].set_result("answer")
    calls[1].set_exception(Unsupported("no such width"))
    calls[2].set_exception(Unsupported("neither"))
    with pytest.raises(Unsupported, match=r"^no such width"):
        await fanout.gather(calls, None, collection="default", full=False)


async def test_reads_record_lost_shards_and_the_states_of_the_others() -> None:
    state = AppliedState(Watermark("log", (3,) * 64))

    async def read(error: NearlineError | None = None) -> ShardItems:
        if error is not None:
            raise error
        return ShardItems([], state)

    gone, context = NotReady("gone"), RequestContext()
    calls = {0: read(), 1: read(gone)}
    found = await fanout.gather_reads(calls, context, collection="default")
    assert list(found.results) == [0]
    assert context.failures == {1: gone} and context.applied == {0: state}
    assert context.watermark == state.watermark.encode()
