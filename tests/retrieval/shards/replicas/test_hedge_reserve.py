"""The budgets of retries and hedges, and the hedges reserved for calls that keep waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from nearline.quantiles import RecentQuantiles
from retrieval.shards.replicas import hedged_calls
from retrieval.shards.replicas.hedged_calls import _RESERVED_HEDGES, HedgedCalls
from retrieval.shards.replicas.replica import Replica
from retrieval.shards.replicas.retry_budget import RetryBudget
from tests.retrieval.shards.replicas.test_hedged_calls import (
    KEY,
    Server,
    replicas_of,
    send,
    slow_percentile,
)


async def test_half_of_the_hedges_are_reserved() -> None:
    calls = HedgedCalls(await replicas_of(Server("a:1"), Server("b:1")), "default", 0)
    spent = [calls.hedges.spend(0.0, _RESERVED_HEDGES) for _ in range(12)]
    assert spent == [True] * 10 + [False] * 2
    spent = [calls.hedges.spend(0.0) for _ in range(12)]
    assert spent == [True] * 10 + [False] * 2


async def test_calls_earn_a_tenth_of_a_retry_and_a_twentieth_of_a_hedge() -> None:
    calls = HedgedCalls(await replicas_of(Server("a:1"), Server("b:1")), "default", 0)
    budgets = (calls.retries, calls.hedges)
    for budget in budgets:
        while budget.spend(0.0):
            pass
    for _ in range(205):
        await calls.call(KEY, send)
    # At the same time, so that time itself earns nothing.
    assert [sum(budget.spend(0.0) for _ in range(50)) for budget in budgets] == [20, 10]


@pytest.mark.parametrize(
    ("p95_s", "waits", "hedge_s"),
    [
        (0.2, False, 0.2),
        (0.2, True, 0.2),
        # A call that waits for live changes is not hedged as early as others.
        (0.01, False, 0.01),
        (0.01, True, 0.05),
        (0.0001, False, 0.001),
        # Nothing is known yet.
        (None, False, 0.05),
        (None, True, 0.05),
    ],
)
async def test_a_call_is_hedged_after_the_percentile_of_similar_calls(
    monkeypatch: pytest.MonkeyPatch, p95_s: float | None, waits: bool, hedge_s: float
) -> None:
    used: list[float | None] = []

    class Race(hedged_calls._Race[Server, str]):
        async def run(self, first: Replica[Server], hedge_s: float | None) -> str:
            used.append(hedge_s)
            return await super().run(first, hedge_s)

    monkeypatch.setattr(hedged_calls, "_Race", Race)
    calls = HedgedCalls(await replicas_of(Server("a:1"), Server("b:1")), "default", 0)
    latencies = RecentQuantiles((0.95,), every=1)
    if p95_s is not None:
        latencies.observe(p95_s)
    await calls.call(KEY, send, latencies, waits=waits)
    assert used == [hedge_s]
    # Only a call that waited for nothing shows how long calls take.
    assert len(latencies._latest) == (p95_s is not None) + (not waits)
    await calls.call(KEY, send)
    assert used == [hedge_s, None]


async def test_a_first_hedge_leaves_the_reserve_alone() -> None:
    hung, good = Server("a:1"), Server("b:1")
    replicas = await replicas_of(hung, good)
    calls = HedgedCalls(replicas, "default", 0)
    calls.hedges = RetryBudget(0.0, floor_per_s=0.0, burst=10.0)
    refused: list[int] = []
    calls.count_hedge["refused"] = lambda *amount: refused.append(good.asked)
    replicas[1]._latency.observe(1.0, time.monotonic())
    hung.open.clear()
    async with asyncio.timeout(10):
        assert await calls.call(KEY, send, await slow_percentile(0.001)) == "b:1"
    # The first attempt to hedge was refused; the call kept waiting, and then used the reserve.
    assert refused == [0]
