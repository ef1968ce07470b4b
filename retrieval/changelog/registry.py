"""The change logs of all collections, over one connection to Redis."""

from __future__ import annotations

from nearline.errors import Unsupported
from nearline.snapshot import Store
from retrieval.changelog.redis_log import RedisLog
from retrieval.redis_client.connection import connect
from retrieval.redis_client.durability import Durability

# Longer than any command may take: those that wait are given up by who waits.
REDIS_TIMEOUT_S = 10.0


class ChangeLogs:
    """Gives the change log of each collection.

    Args:
        store: Names the log of each collection.
        url: Redis, see `redis_state.connect`; empty: there is none.
        who: Who makes a log where there is none, for the record.
        replicas: How many replicas of Redis must have a change on disk before it is acknowledged.
    Raises: SettingsError: not an address of a Redis.
    """

    def __init__(self, store: Store, url: str, *, who: str, replicas: int = 0) -> None:
        self._store = store
        self._who = who
        # An append that was not answered may have been carried out: never send it again unasked.
        self._client = connect(url, timeout_s=REDIS_TIMEOUT_S, retries=0) if url else None
        self._durability = Durability(self._client, replicas) if self._client else None
        self._logs: dict[str, RedisLog] = {}

    def __bool__(self) -> bool:
        """Returns whether there is a Redis to keep logs in."""
        return self._client is not None

    def log(self, collection: str) -> RedisLog:
        """Returns the log of a collection, the same every time: to append, to trim, to ask.

        Raises: Unsupported: there is no Redis. InvalidRequest: not a name of a collection.
        """
        log = self._logs.get(collection)
        if log is None:
            log = self._logs[collection] = self.reader(collection)
        return log

    def reader(self, collection: str) -> RedisLog:
        """Returns the log of a collection once more: each follower reads its own.

        Raises: as `log`.
        """
        if self._client is None or self._durability is None:
            raise Unsupported("live changes need a change log: start the service with --redis URL")
        return RedisLog(self._store, collection, self._client, self._durability, self._who)

    async def close(self) -> None:
        """Closes the connections; waiting reads fail with NotReady."""
        if self._client is not None:
            await self._client.aclose()
