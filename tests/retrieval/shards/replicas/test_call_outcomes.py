"""Retries and hedges are counted by outcome, and a silent replica is a last resort."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from nearline.errors import DeadlineExceeded, Overloaded
from retrieval.balancing.retry_budget import RetryBudget
from retrieval.shards.replicas.hedged_calls import HedgedCalls
from tests.retrieval.shards.replicas.test_hedged_calls import (
    KEY,
    Server,
    answer_took,
    replicas_of,
    send,
    slow_percentile,
    until,
)


def counted(metric: str, collection: str) -> dict[str, float]:
    """Returns how often each outcome was counted, without those that never were."""
    name, labels = f"nearline_retrieval_{metric}_total", {"collection": collection, "shard": "0"}
    found = {
        outcome: REGISTRY.get_sample_value(name, {**labels, "outcome": outcome})
        for outcome in ("made", "refused", "won", "lost")
    }
    return {outcome: count for outcome, count in found.items() if count}


@pytest.mark.parametrize("outcome", ["won", "lost"])
async def test_a_hedge_is_counted_as_won_or_lost(outcome: str) -> None:
    slow, other = Server("a:1"), Server("b:1")
    replicas = await replicas_of(slow, other)
    answer_took(replicas[1])
    slow.open.clear()
    other.open.clear()
    calls = HedgedCalls(replicas, outcome, 0)
    answer = asyncio.ensure_future(calls.call(KEY, send, await slow_percentile(0.001)))
    await until(lambda: other.asked == 1)
    winner = other if outcome == "won" else slow
    winner.open.set()
    assert await answer == winner.address
    assert counted("hedges", outcome) == {outcome: 1}


async def test_retries_are_counted_as_made_or_refused() -> None:
    servers = Server("a:1"), Server("b:1")
    for server in servers:
        server.error = Overloaded("full")
    calls = HedgedCalls(await replicas_of(*servers), "retried", 0)
    calls.retries = RetryBudget(0.0, floor_per_s=0.0, burst=2.0)
    for _ in range(5):
        with pytest.raises(Overloaded):
            await calls.call(KEY, send)
    assert counted("retries", "retried") == {"made": 2, "refused": 3}


async def test_a_silent_replica_is_tried_again_after_all_others_failed() -> None:
    silent, full = Server("a:1"), Server("b:1")
    replicas = await replicas_of(silent, full)
    answer_took(replicas[1])
    full.error = Overloaded("full")
    silent.open.clear()
    calls = HedgedCalls(replicas, "silent", 0)
    answer = asyncio.ensure_future(calls.call(KEY, send))
    await until(lambda: silent.asked == 1)
    silent.status_error = DeadlineExceeded("no answer in time")
    await replicas[0].poll()
    silent.open.set()
    assert await answer == "a:1"
    assert (silent.asked, full.asked) == (2, 1)
