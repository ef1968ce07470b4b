"""Calls to replicas: load balancing, retries, hedges and their budgets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from functools import partial

import pytest

from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NearlineError,
    NotApplied,
    NotReady,
    Overloaded,
    SnapshotGone,
)
from retrieval.balancing.retry_budget import RetryBudget
from retrieval.live.progress import ShardProgress
from retrieval.protocols.quantiles import RecentQuantiles
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas.hedged_calls import HedgedCalls
from retrieval.shards.replicas.load_balancer import choose_replica
from retrieval.shards.replicas.replica import Replica
from tests import waits

until = partial(waits.until, every_s=0)
KEY = ShardKey("default", "s1", 0)


class Server:
    """A server that answers with its name unless the test says otherwise."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.held = frozenset({KEY})
        self.status_error: NearlineError | None = None
        self.error: NearlineError | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        self.cancelled = 0

    async def status(self, timeout_s: float) -> dict[ShardKey, ShardProgress | None]:
        if self.status_error is not None:
            raise self.status_error
        return dict.fromkeys(self.held)

    async def answer(self) -> str:
        self.asked += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self.address


async def replicas_of(*servers: Server) -> list[Replica[Server]]:
    replicas = [Replica(server) for server in servers]
    for replica in replicas:
        await replica.poll()
    return replicas


def send(server: Server) -> Awaitable[str]:
    return server.answer()


def answer_took(replica: Replica[Server], seconds: float = 1.0) -> None:
    """Lets a replica be as slow as if its last answer had taken so long."""
    replica._latency.observe(seconds, time.monotonic())


async def slow_percentile(seconds: float) -> RecentQuantiles:
    latencies = RecentQuantiles((0.95,), every=1)
    latencies.observe(seconds)
    return latencies


async def test_calls_go_to_the_less_loaded_replica() -> None:
    one, two = await replicas_of(Server("a:1"), Server("b:1"))
    for replica in (one, two):
        await replica.call(KEY, send)
    now = time.monotonic()
    answer_took(one)
    assert choose_replica([one, two], KEY, now) is two
    one.in_flight, two.in_flight = 0, 1_000_000
    assert choose_replica([one, two], KEY, now) is one


async def test_calls_are_spread_evenly_over_equal_replicas() -> None:
    servers = [Server(f"{name}:1") for name in "abc"]
    replicas = await replicas_of(*servers)
    for replica in replicas:
        answer_took(replica, 0.01)
    chosen: Counter[str] = Counter()
    for _ in range(300):
        found = choose_replica(replicas, KEY, time.monotonic())
        assert found is not None
        found.in_flight += 1
        chosen[found.address] += 1
    # Of two choices at random, the loads of three alike differ by very few.
    assert max(chosen.values()) - min(chosen.values()) <= 6


async def test_ejected_replicas_and_those_without_the_snapshot_are_avoided() -> None:
    one, two, three = await replicas_of(Server("a:1"), Server("b:1"), Server("c:1"))
    one.shards = {}
    for _ in range(3):
        two.health.record_failure(time.monotonic(), "e")
    assert {choose_replica([one, two, three], KEY, time.monotonic()) for _ in range(50)} == {three}
    assert choose_replica([one, two, three], KEY, time.monotonic(), tried=[three]) is two
    two.health.record_lost("gone")
    assert choose_replica([one, two, three], KEY, time.monotonic(), tried=[three]) is None


@pytest.mark.parametrize(
    ("kind", "asked_at_most"),
    # Gone or without the snapshot: asked once. The others may pass.
    [(NotReady, 1), (SnapshotGone, 1), (InternalError, 20), (Overloaded, 20)],
)
async def test_a_call_that_fails_through_its_replica_is_retried_on_another(
    kind: type[NearlineError], asked_at_most: int
) -> None:
    bad, good = Server("a:1"), Server("b:1")
    bad.error = kind("not here")
    calls = HedgedCalls(await replicas_of(bad, good), "default", 0)
    assert [await calls.call(KEY, send) for _ in range(20)] == ["b:1"] * 20
    assert bad.asked <= asked_at_most


@pytest.mark.parametrize("kind", [InvalidRequest, DeadlineExceeded])
async def test_errors_that_every_replica_would_raise_are_not_retried(
    kind: type[NearlineError],
) -> None:
    servers = Server("a:1"), Server("b:1")
    for server in servers:
        server.error = kind("no")
    calls = HedgedCalls(await replicas_of(*servers), "default", 0)
    with pytest.raises(kind):
        await calls.call(KEY, send)
    assert sum(server.asked for server in servers) == 1


async def test_the_error_without_replicas_names_the_reasons() -> None:
    servers = Server("a:1"), Server("b:1")
    for server in servers:
        server.error = server.status_error = NotReady("connection refused")
    calls = HedgedCalls(await replicas_of(Server("a:1")), "default", 3)
    calls.replicas[0].shards = {}
    with pytest.raises(SnapshotGone, match="holds snapshot s1; retry the whole request"):
        await calls.call(KEY, send)
    calls = HedgedCalls(await replicas_of(*servers), "default", 3)
    with pytest.raises(
        NotReady, match=r"shard 3 of 'default' answers \(a:1: connection refused; b"
    ):
        await calls.call(KEY, send)


async def test_retries_stop_when_the_budget_is_spent() -> None:
    servers = Server("a:1"), Server("b:1")
    calls = HedgedCalls(await replicas_of(*servers), "default", 0)
    for server in servers:
        server.error = Overloaded("full")
    for _ in range(2_000):
        with pytest.raises(Overloaded):
            await calls.call(KEY, send)
    asked = sum(server.asked for server in servers)
    # A tenth, what was saved up before, and two more per second.
    assert 2_000 + 200 <= asked <= 2_000 + 200 + 100 + 20


async def test_calls_to_a_replica_that_is_gone_move_without_a_budget() -> None:
    gone, good = Server("a:1"), Server("b:1")
    replicas = await replicas_of(gone, good)
    gone.open.clear()
    gone.error = NotReady("connection reset")
    calls = HedgedCalls(replicas, "default", 0)
    calls.retries = RetryBudget(0.0, floor_per_s=0.0, burst=0.0)
    answer_took(replicas[1])
    answers = [asyncio.ensure_future(calls.call(KEY, send)) for _ in range(500)]
    await until(lambda: gone.asked == 500)
    gone.open.set()
    assert await asyncio.gather(*answers) == ["b:1"] * 500


async def test_calls_to_a_replica_that_is_silent_move_within_the_budget() -> None:
    hung, good = Server("a:1"), Server("b:1")
    replicas = await replicas_of(hung, good)
    hung.open.clear()
    hung.status_error = DeadlineExceeded("no answer in time")
    calls = HedgedCalls(replicas, "default", 0)
    calls.retries = RetryBudget(0.0, floor_per_s=0.0, burst=1.0)
    answer_took(replicas[1])
    answers = [asyncio.ensure_future(calls.call(KEY, send)) for _ in range(2)]
    await until(lambda: hung.asked == 2)
    await replicas[0].poll()
    ends = await asyncio.gather(*answers, return_exceptions=True)
    assert ends.count("b:1") == 1
    assert sum(isinstance(end, NotReady) for end in ends) == 1


async def test_a_running_call_is_awaited_when_the_other_replica_fails() -> None:
    broken, slow = Server("a:1"), Server("b:1")
    replicas = await replicas_of(broken, slow)
    answer_took(replicas[1])
    for server in (broken, slow):
        server.open.clear()
    broken.error = InternalError("a bug")
    calls = HedgedCalls(replicas, "default", 0)
    answer = asyncio.ensure_future(calls.call(KEY, send, await slow_percentile(0.001)))
    await until(lambda: slow.asked == 1)
    broken.open.set()
    await until(lambda: replicas[0].in_flight == 0)
    # Turns of the loop for the call to take that in.
    for _ in range(10):
        await asyncio.sleep(0)
    slow.open.set()
    assert await answer == "b:1"


async def test_a_slow_call_is_hedged_and_the_loser_is_cancelled() -> None:
    slow, fast = Server("a:1"), Server("b:1")
    replicas = await replicas_of(slow, fast)
    replicas[1].in_flight = 1
    answer_took(replicas[1])
    slow.open.clear()
    calls = HedgedCalls(replicas, "default", 0)
    assert await calls.call(KEY, send, await slow_percentile(0.001)) == "b:1"
    assert (slow.asked, fast.asked) == (1, 1)
    await until(lambda: slow.cancelled == 1)
    assert replicas[0].in_flight == 0


async def test_the_first_call_may_still_win_against_its_hedge() -> None:
    slow, other = Server("a:1"), Server("b:1")
    replicas = await replicas_of(slow, other)
    answer_took(replicas[1])
    for server in (slow, other):
        server.open.clear()
    calls = HedgedCalls(replicas, "default", 0)
    answer = asyncio.ensure_future(calls.call(KEY, send, await slow_percentile(0.001)))
    await until(lambda: other.asked == 1)
    slow.open.set()
    assert await answer == "a:1"
    await until(lambda: other.cancelled == 1)


async def test_hedges_stop_with_their_budget_and_slow_replicas_are_ejected() -> None:
    slow, fast = Server("a:1"), Server("b:1")
    replicas = await replicas_of(slow, fast)
    slow.open.clear()
    calls = HedgedCalls(replicas, "default", 0)
    # Until it is ejected for being beaten three times, the slow one is asked now and then.
    async with asyncio.timeout(10):
        for _ in range(200):
            assert await calls.call(KEY, send, await slow_percentile(0.001)) == "b:1"
    assert slow.asked <= 5
    assert slow.cancelled == slow.asked


async def test_a_replica_that_loses_to_three_hedges_is_ejected() -> None:
    slow, fast = Server("a:1"), Server("b:1")
    replicas = await replicas_of(slow, fast)
    slow.open.clear()
    calls = HedgedCalls(replicas, "default", 0)
    for _ in range(20):
        calls.hedges.earn()
    for lost in range(3):
        assert replicas[0].health.admits(time.monotonic(), 0), lost
        # So that the slow one is asked first.
        answer_took(replicas[1], 1000.0)
        assert await calls.call(KEY, send, await slow_percentile(0.001)) == "b:1"
    assert slow.asked == 3
    assert not replicas[0].health.admits(time.monotonic(), 0)


async def test_a_call_that_waits_for_live_changes_is_hedged_without_marking_replicas_slow() -> None:
    slow, fast = Server("a:1"), Server("b:1")
    replicas = await replicas_of(slow, fast)
    latencies = await slow_percentile(0.001)
    calls = HedgedCalls(replicas, "default", 0)
    for _ in range(20):
        calls.hedges.earn()
    fast.open.clear()
    slow.open.clear()
    for _ in range(5):
        asked = slow.asked + fast.asked
        call = asyncio.create_task(calls.call(KEY, send, latencies, waits=True))
        await until(lambda asked=asked: slow.asked + fast.asked == asked + 2)  # type: ignore[misc]
        fast.open.set()
        assert await call == "b:1"
        fast.open.clear()
    await until(lambda: slow.cancelled == slow.asked == 5)
    assert latencies.values == (0.001,)
    assert all(one.health.admits(time.monotonic(), 0) for one in replicas)


async def test_a_replica_that_is_behind_stays_available_and_the_call_is_retried() -> None:
    behind, ahead = Server("a:1"), Server("b:1")
    behind.error = NotApplied("not yet")
    replicas = await replicas_of(behind, ahead)
    calls = HedgedCalls(replicas, "default", 0)
    assert [await calls.call(KEY, send, waits=True) for _ in range(20)] == ["b:1"] * 20
    assert not any(one.health.away for one in replicas)
    ahead.error = NotApplied("not yet")
    with pytest.raises(NotApplied):
        await calls.call(KEY, send, waits=True)
    assert not any(one.health.away for one in replicas)


async def test_hedges_are_reserved_for_calls_that_keep_waiting() -> None:
    hung, good = Server("a:1"), Server("b:1")
    replicas = await replicas_of(hung, good)
    answer_took(replicas[1])
    hung.open.clear()
    calls = HedgedCalls(replicas, "default", 0)
    calls.hedges = RetryBudget(0.0, floor_per_s=0.0, burst=10.0)
    async with asyncio.timeout(10):
        assert await calls.call(KEY, send, await slow_percentile(0.001)) == "b:1"
    assert (hung.asked, good.asked) == (1, 1)
    # Ten may be kept, so that was not the first attempt, and the nine left are for such calls too.
    assert not calls.hedges.spend(0.0, keep=9.0)
    assert calls.hedges.spend(0.0, keep=8.0)


async def test_a_hedge_waits_until_the_budget_recovers() -> None:
    hung, good = Server("a:1"), Server("b:1")
    replicas = await replicas_of(hung, good)
    answer_took(replicas[1])
    hung.open.clear()
    calls = HedgedCalls(replicas, "default", 0)
    calls.hedges = RetryBudget(0.0, floor_per_s=100.0, burst=1.0)
    assert calls.hedges.spend(time.monotonic())
    async with asyncio.timeout(10):
        assert await calls.call(KEY, send, await slow_percentile(0.001)) == "b:1"
    assert (hung.asked, good.asked) == (1, 1)


async def test_a_silent_replica_loses_its_calls_to_the_others() -> None:
    hung, good = Server("a:1"), Server("b:1")
    replicas = await replicas_of(hung, good)
    answer_took(replicas[1])
    hung.open.clear()
    calls = HedgedCalls(replicas, "default", 0)
    answer = asyncio.ensure_future(calls.call(KEY, send))
    await until(lambda: hung.asked == 1)
    hung.status_error = DeadlineExceeded("no answer in time")
    await replicas[0].poll()
    assert await answer == "b:1"


async def test_a_single_replica_is_called_without_a_task() -> None:
    server = Server("a:1")
    calls = HedgedCalls(await replicas_of(server), "default", 0)
    before = len(asyncio.all_tasks())

    async def count(peer: Server) -> int:
        return len(asyncio.all_tasks())

    assert await calls.call(KEY, count) == before


async def test_a_cancelled_caller_cancels_its_calls() -> None:
    servers = Server("a:1"), Server("b:1")
    for server in servers:
        server.open.clear()
    calls = HedgedCalls(await replicas_of(*servers), "default", 0)
    caller = asyncio.ensure_future(calls.call(KEY, send, await slow_percentile(0.001)))
    await until(lambda: sum(server.asked for server in servers) == 2)
    caller.cancel()
    await until(lambda: sum(server.cancelled for server in servers) == 2)
    assert caller.done()


async def test_a_replica_that_returns_is_used_again_automatically() -> None:
    server, other = Server("a:1"), Server("b:1")
    replicas = await replicas_of(server, other)
    calls = HedgedCalls(replicas, "default", 0)
    watchers = [asyncio.ensure_future(replica.watch()) for replica in replicas]
    try:
        for one in (server, other):
            one.error = one.status_error = NotReady("connection refused")
        with pytest.raises(NotReady):
            await calls.call(KEY, send)
        server.error = server.status_error = None
        await until(lambda: replicas[0].holds(KEY))
        assert await calls.call(KEY, send) == "a:1"
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
