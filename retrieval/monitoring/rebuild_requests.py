"""Rebuilds that a router asks for, and that upkeep takes: through Redis, one an hour at most."""

from __future__ import annotations

from retrieval.redis_client.connection import Redis, translate_redis_errors

_MIN_INTERVAL_S = 3_600
_EXPIRES_S = 86_400


class RebuildRequests:
    """What is asked for, by collection.

    Args:
        redis: That of the change logs.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def request(self, collection: str, reason: str) -> bool:
        """Asks for a rebuild.

        Returns: False where one was asked for within the last hour, by whomever.
        Raises: NotReady: Redis is away.
        """
        wanted, pause = _keys(collection)
        async with translate_redis_errors("rebuilds after drift"):
            if not await self._redis.set(pause, b"", nx=True, ex=_MIN_INTERVAL_S):
                return False
            await self._redis.set(wanted, reason.encode(), ex=_EXPIRES_S)
        return True

    async def take(self, collection: str) -> str:
        """Takes what was asked for, and gives the reason; empty: nothing was.

        Raises: NotReady: Redis is away.
        """
        async with translate_redis_errors("rebuilds after drift"):
            reason = await self._redis.getdel(_keys(collection)[0])
        return reason.decode() if isinstance(reason, bytes) else reason or ""


def _keys(collection: str) -> tuple[str, str]:
    prefix = f"nl:{{{collection}}}:rebuild"
    return prefix, f"{prefix}:pause"
