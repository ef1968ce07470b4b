"""The budgets of retries and hedges, and the hedges reserved for calls that keep waiting."""

from __future__ import annotations

import asyncio
import time

from retrieval.shards.replicas.hedged_calls import _RESERVED_HEDGES, HedgedCalls
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
