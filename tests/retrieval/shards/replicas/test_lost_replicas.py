"""Calls whose replica is lost while it works on them: the call may be the cause."""

from __future__ import annotations

import asyncio

import pytest

from nearline.errors import NotReady
from retrieval.balancing.retry_budget import RetryBudget
from retrieval.shards.replicas.hedged_calls import HedgedCalls
from tests.retrieval.shards.replicas.test_hedge_reserve import record_waits
from tests.retrieval.shards.replicas.test_hedged_calls import (
    KEY,
    Server,
    answer_took,
    replicas_of,
    send,
    slow_percentile,
    until,
)


async def test_a_call_that_its_replicas_die_of_reaches_two_of_them() -> None:
    servers = [Server(f"{name}:1") for name in "abcde"]
    for server in servers:
        server.error = NotReady("connection reset", peer_died=True)
    calls = HedgedCalls(await replicas_of(*servers), "default", 0)
    with pytest.raises(NotReady) as caught:
        await calls.call(KEY, send)
    assert sum(server.asked for server in servers) == 2
    # Clients do not repeat the call either.
    assert caught.value.peer_died


async def test_a_call_whose_replica_died_is_retried_within_the_budget() -> None:
    died, good = Server("a:1"), Server("b:1")
    died.error = NotReady("connection reset", peer_died=True)
    replicas = await replicas_of(died, good)
    answer_took(replicas[1])
    calls = HedgedCalls(replicas, "default", 0)
    calls.retries = RetryBudget(0.0, floor_per_s=0.0, burst=1.0)
    assert await calls.call(KEY, send) == "b:1"
    await replicas[0].poll()
    with pytest.raises(NotReady):
        await calls.call(KEY, send)


async def test_no_third_replica_is_called_once_one_has_died_beside_a_hedge() -> None:
    dying, slow, third = Server("a:1"), Server("b:1"), Server("c:1")
    replicas = await replicas_of(dying, slow)
    answer_took(replicas[1])
    for server in (dying, slow):
        server.open.clear()
    dying.error = NotReady("connection reset", peer_died=True)
    calls = HedgedCalls(replicas, "default", 0)
    answer = asyncio.ensure_future(calls.call(KEY, send, await slow_percentile(0.001)))
    await until(lambda: slow.asked == 1)
    calls.replicas = (*replicas, *await replicas_of(third))
    dying.open.set()
    await until(lambda: replicas[0].in_flight == 0)
    for _ in range(10):
        await asyncio.sleep(0)
    slow.open.set()
    assert await answer == "b:1"
    assert third.asked == 0


async def test_a_retry_of_a_call_whose_replica_died_is_not_hedged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = record_waits(monkeypatch)
    servers = dying, slow, third = [Server(f"{name}:1") for name in "abc"]
    dying.error = NotReady("connection reset", peer_died=True)
    slow.open.clear()
    replicas = await replicas_of(dying, slow)
    answer_took(replicas[1])
    calls = HedgedCalls(replicas, "default", 0)
    answer = asyncio.ensure_future(calls.call(KEY, send, await slow_percentile(0.001)))
    await until(lambda: slow.asked == 1)
    calls.replicas = (*replicas, *await replicas_of(third))
    await until(lambda: None in waits)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [server.asked for server in servers] == [1, 1, 0]
    slow.open.set()
    assert await answer == "b:1"
