"""Calls to several shards end together with the request."""

from __future__ import annotations

import asyncio

import pytest

from nearline.errors import DeadlineExceeded, NotReady, ShardsUnavailable
from retrieval.search import fanout


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
