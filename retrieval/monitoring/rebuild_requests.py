"""Rebuild requests from routers to maintenance through Redis, at most one per hour."""

from __future__ import annotations

from retrieval.redis_client.connection import Redis, translate_redis_errors

_MIN_INTERVAL_S = 3_600
_EXPIRES_S = 86_400
# Of a reason, in bytes: it is kept with the snapshot, and Redis may hold anything.
_MAX_REASON = 1_000


class RebuildRequests:
    """Pending rebuild requests by collection.

    Args:
        redis: Redis of the change logs.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def request(self, collection: str, reason: str) -> bool:
        """Requests a rebuild.

        Returns: False if any router has requested one within the last hour.
        Raises: NotReady: Redis is unreachable.
        """
        wanted, pause = _keys(collection)
        async with translate_redis_errors("rebuilds after drift"):
            if not await self._redis.set(pause, b"", nx=True, ex=_MIN_INTERVAL_S):
                return False
            await self._redis.set(wanted, reason.encode(), ex=_EXPIRES_S)
        return True

    async def take(self, collection: str) -> str:
        """Removes the pending request and returns its reason; empty if there is no request.

        Raises: NotReady: Redis is unreachable.
        """
        async with translate_redis_errors("rebuilds after drift"):
            reason = await self._redis.getdel(_keys(collection)[0])
        return reason[:_MAX_REASON].decode(errors="replace") if isinstance(reason, bytes) else ""


def _keys(collection: str) -> tuple[str, str]:
    prefix = f"nl:{{{collection}}}:rebuild"
    return prefix, f"{prefix}:pause"
