"""Token budgets in a real Redis, against a dictionary of counters."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from generation.memory.token_budgets import BudgetScope, Reservation, TokenBudgets, TokenLimits
from generation.writers.extractive import EXTRACTIVE
from generation.writers.routing import LARGE, Route
from retrieval.redis_client.connection import Redis, connect
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.

pytestmark = [pytest.mark.service, needs_redis]
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ROUTE = Route((LARGE, EXTRACTIVE))


def scope(
    tenant: str = "acme", session: str = "s", day: int = 0, collection: str = "default"
) -> BudgetScope:
    return BudgetScope(
        collection=collection,
        tenant=tenant,
        session_id=session,
        now=NOON + timedelta(days=day),
    )


@pytest.mark.parametrize(("tokens", "admitted"), [(100, True), (101, False)])
async def test_the_request_itself_counts_against_the_limit(
    shared_redis: str, tokens: int, admitted: bool
) -> None:
    async with connect(shared_redis, timeout_s=10.0) as redis:
        await redis.flushdb()
        budgets = TokenBudgets(redis, TokenLimits(day=100))
        route, held = await budgets.admit(ROUTE, tokens, scope())
        assert (route.rungs[0] == LARGE) is admitted
        assert held.tokens == (tokens if admitted else 0)


async def test_unspent_tokens_are_returned_and_overspent_ones_charged(shared_redis: str) -> None:
    async with connect(shared_redis, timeout_s=10.0) as redis:
        await redis.flushdb()
        budgets = TokenBudgets(redis, TokenLimits(tenant_day=100))
        _, held = await budgets.admit(ROUTE, 100, scope())
        await budgets.settle(held, 30)
        route, held = await budgets.admit(ROUTE, 70, scope())
        assert route == ROUTE
        await budgets.settle(held, 75)
        route, _ = await budgets.admit(ROUTE, 1, scope())
        assert route.rungs == (EXTRACTIVE,)
        assert "the budget of tenant 'acme', 100 tokens, is used up" in route.reason


@pytest.mark.parametrize(
    ("limits", "others", "same"),
    [
        (
            TokenLimits(session=10),
            [scope("b"), scope(session="t"), scope(collection="shop"), scope(session="")],
            [scope(), scope(day=1)],
        ),
        (
            TokenLimits(tenant_day=10),
            [scope("b"), scope(day=1)],
            [scope(session="t"), scope(session=""), scope(collection="shop")],
        ),
        (TokenLimits(day=10), [scope(day=1)], [scope("b"), scope(session="t")]),
    ],
)
async def test_a_budget_is_used_up_for_those_who_share_it_alone(
    shared_redis: str, limits: TokenLimits, others: list[BudgetScope], same: list[BudgetScope]
) -> None:
    async with connect(shared_redis, timeout_s=10.0) as redis:
        await redis.flushdb()
        budgets = TokenBudgets(redis, limits)
        await budgets.admit(ROUTE, 10, scope())
        assert [(await budgets.admit(ROUTE, 10, one))[0] == ROUTE for one in others] == [
            True for _ in others
        ]
        assert not any([(await budgets.admit(ROUTE, 1, one))[0] == ROUTE for one in same])


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_budgets_behave_like_counters_in_memory(shared_redis: str, data: st.DataObject) -> None:
    limit = st.just(0) | st.integers(1, 60)
    limits = TokenLimits(
        session=data.draw(limit), tenant_day=data.draw(limit), day=data.draw(limit)
    )
    scopes = st.builds(
        scope, st.sampled_from("ab"), st.sampled_from(["", "x", "y"]), st.integers(0, 1)
    )

    async def run() -> None:
        async with connect(shared_redis, timeout_s=10.0) as redis:
            await redis.flushdb()
            await follow(redis)

    async def follow(redis: Redis) -> None:
        budgets = TokenBudgets(redis, limits)
        spent: Counter[tuple[object, ...]] = Counter()
        held: list[tuple[Reservation, list[tuple[object, ...]]]] = []
        for _ in range(data.draw(st.integers(1, 12))):
            settles = data.draw(st.booleans())
            if held and settles:
                reservation, names = held.pop(data.draw(st.integers(0, len(held) - 1)))
                used = data.draw(st.integers(0, 40))
                await budgets.settle(reservation, used)
                for name in names:
                    spent[name] += used - reservation.tokens
                continue
            asked, tokens = data.draw(scopes), data.draw(st.integers(1, 40))
            day = asked.now.date()
            own = {
                ("day", day): limits.day,
                ("tenant", day, asked.tenant): limits.tenant_day,
            }
            if asked.session_id:
                own["session", asked.tenant, asked.session_id] = limits.session
            fits = all(not most or spent[name] + tokens <= most for name, most in own.items())
            route, reservation = await budgets.admit(ROUTE, tokens, asked)
            if not limits:
                assert (route, reservation) == (ROUTE, Reservation())
                continue
            assert (route == ROUTE, reservation.tokens) == (fits, tokens if fits else 0)
            if fits:
                spent.update(dict.fromkeys(own, tokens))
                held.append((reservation, list(own)))

    asyncio.run(run())
