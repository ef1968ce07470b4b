"""Token budgets of models in Redis: reserved before an answer, settled after it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from generation.protocols import metrics
from generation.writers.extractive import EXTRACTIVE
from generation.writers.routing import Route
from nearline.errors import NotReady
from retrieval.redis_client.connection import Redis, translate_redis_errors

# All counters are in one slot of a Redis Cluster, so that one script can read them together.
_PREFIX = "nearline:{budget}"
_DAY_S = 86_400
# Counters outlive their day, so that a settlement after midnight finds them.
_KEPT_S = 2 * _DAY_S
# KEYS: counters. ARGV: tokens, TTL in seconds, then a limit for each counter (0: no limit).
# Adds the tokens to all counters and returns 0; if one would exceed its limit, adds nothing and
# returns the number of the first such counter.
_RESERVE = """
for i, key in ipairs(KEYS) do
  local limit = tonumber(ARGV[2 + i])
  if limit > 0 and tonumber(redis.call('GET', key) or '0') + tonumber(ARGV[1]) > limit then
    return i
  end
end
for _, key in ipairs(KEYS) do
  redis.call('INCRBY', key, ARGV[1])
  redis.call('EXPIRE', key, ARGV[2])
end
return 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """Maximum tokens that models may read and write; 0 means no limit."""

    session: int = 0
    tenant_day: int = 0
    day: int = 0

    def __bool__(self) -> bool:
        """Returns whether any limit is set."""
        return bool(self.session or self.tenant_day or self.day)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetScope:
    """Owner of the tokens of an answer.

    session_id: Empty if the answer belongs to no session.
    now: Current time, with a time zone.
    """

    collection: str
    tenant: str
    session_id: str
    now: datetime


class Reservation(NamedTuple):
    """Tokens reserved for an answer in each of the counters."""

    tokens: int = 0
    counters: tuple[str, ...] = ()


class TokenBudgets:
    """Counts the tokens of models by session, by tenant and day, and by day; days are in UTC.

    An answer that is cancelled, or whose service crashes, counts with its full reservation.

    Args:
        redis: Connection to Redis; may be None without limits.
        limits: Maximum tokens.
    """

    def __init__(self, redis: Redis | None, limits: TokenLimits) -> None:
        self._redis = redis
        self._limits = limits

    async def admit(
        self, route: Route, tokens: int, scope: BudgetScope
    ) -> tuple[Route, Reservation]:
        """Reserves tokens for the models of a route, or removes the models from it.

        Args:
            route: The planned route.
            tokens: Maximum tokens of the answer, including the prompt.
            scope: Owner of the tokens.
        Returns: The route, and the reservation. If a budget is too low, or cannot be checked
            because Redis is unavailable, the returned route has no models, and says why.
        """
        if not self._limits or route.rungs[0] == EXTRACTIVE:
            return route, Reservation()
        counters = self._counters(scope)
        try:
            full = await self._reserve(tokens, counters)
        except NotReady as error:
            return _without_models(f"budgets cannot be checked: {error.message}"), Reservation()
        if full:
            whose, _, limit = counters[full - 1]
            return (
                _without_models(f"the budget of {whose}, {limit:,} tokens, is used up"),
                Reservation(),
            )
        return route, Reservation(tokens, tuple(key for _, key, _ in counters))

    async def settle(self, reservation: Reservation, spent: int) -> None:
        """Returns unused tokens of a reservation, or charges tokens beyond it.

        If Redis is unavailable, the whole reservation counts as spent.
        """
        change = spent - reservation.tokens
        if self._redis is None or not change or not reservation.counters:
            return
        with contextlib.suppress(NotReady):
            async with translate_redis_errors(), self._redis.pipeline(transaction=False) as pipe:
                for key in reservation.counters:
                    pipe.incrby(key, change)
                await pipe.execute()

    def _counters(self, scope: BudgetScope) -> list[tuple[str, str, int]]:
        """Returns the owner, key and limit of each counter."""
        day = scope.now.astimezone(UTC).strftime("%Y-%m-%d")
        owner = f"{quote(scope.collection, safe='')}/{quote(scope.tenant, safe='')}"
        tenant = f"{_PREFIX}:tenant:{day}:{quote(scope.tenant, safe='')}"
        counters = [
            ("the day", f"{_PREFIX}:day:{day}", self._limits.day),
            (f"tenant {scope.tenant!r}", tenant, self._limits.tenant_day),
        ]
        if scope.session_id:
            key = f"{_PREFIX}:session:{owner}/{quote(scope.session_id, safe='')}"
            counters.append(("the session", key, self._limits.session))
        return counters

    async def _reserve(self, tokens: int, counters: list[tuple[str, str, int]]) -> int:
        """Returns the number of the first counter without room, from 1; 0 if all have room."""
        if self._redis is None:
            raise NotReady(
                "token budgets need Redis; start the service with --redis URL (nearline up: "
                "without --no-redis)"
            )
        names = [key for _, key, _ in counters]
        arguments = [tokens, _KEPT_S, *(limit for _, _, limit in counters)]
        async with translate_redis_errors():
            return int(await self._redis.eval(_RESERVE, len(names), *names, *arguments))


def _without_models(reason: str) -> Route:
    metrics.budget_refusals.inc()
    return Route((EXTRACTIVE,), reason)
