"""The budgets of retries and hedges, and the hedges reserved for calls that keep waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from retrieval.balancing.retry_budget import RetryBudget
from retrieval.protocols.quantiles import RecentQuantiles
from retrieval.shards.replicas import hedged_calls
from retrieval.shards.replicas.hedged_calls import _RESERVED_HEDGES, HedgedCalls
from retrieval.shards.replicas.replica import Replica
from tests.retrieval.shards.replicas.test_hedged_calls import (
    KEY,
    Server,
    answer_took,
    replicas_of,
    send,
    slow_percentile,
    until,
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


async def test_an_outage_without_other_calls_is_retried_from_savings_and_then_every_second() -> (
    None
):
    calls = HedgedCalls(await replicas_of(Server("a:1"), Server("b:1")), "default", 0)
    budgets = (calls.retries, calls.hedges)
    assert [sum(budget.spend(0.0) for _ in range(200)) for budget in budgets] == [100, 20]
    assert [sum(budget.spend(5.0) for _ in range(200)) for budget in budgets] == [10, 5]
    # After a long quiet time, no more is saved than before.
    assert [sum(budget.spend(3_600.0) for _ in range(200)) for budget in budgets] == [100, 20]


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
    answer_took(replicas[1])
    hung.open.clear()
    async with asyncio.timeout(10):
        assert await calls.call(KEY, send, await slow_percentile(0.001)) == "b:1"
    # The first attempt to hedge was refused; the call kept waiting, and then used the reserve.
    assert refused == [0]


def record_waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Returns a list that receives each time for which a call is awaited before it is hedged."""
    waits: list[float | None] = []

    async def wait(tasks: Collection[Any], *, timeout: float | None, return_when: str) -> Any:
        waits.append(timeout)
        return await asyncio.wait(tasks, timeout=timeout, return_when=return_when)

    replacement = SimpleNamespace(wait=wait, FIRST_COMPLETED=asyncio.FIRST_COMPLETED)
    monkeypatch.setattr(hedged_calls, "asyncio", replacement)
    return waits


async def test_a_refused_hedge_is_attempted_after_ever_longer_waits_and_a_call_is_hedged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = record_waits(monkeypatch)
    servers = [Server(f"{name}:1") for name in "abc"]
    for server in servers:
        server.open.clear()
    calls = HedgedCalls(await replicas_of(*servers), "default", 0)
    spent, calls.hedges = calls.hedges, RetryBudget(0.0, floor_per_s=0.0, burst=0.0)

    def refuse(amount: float = 1, exemplar: object = None) -> None:
        if len(waits) == 3:
            calls.hedges = spent

    calls.count_hedge["refused"] = refuse
    answer = asyncio.ensure_future(calls.call(KEY, send, await slow_percentile(0.001)))
    await until(lambda: None in waits and sum(server.asked for server in servers) > 1)
    assert waits == [0.001, 0.002, 0.004, 0.008, None]
    assert sum(server.asked for server in servers) == 2
    for server in servers:
        server.open.set()
    await answer
