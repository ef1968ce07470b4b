"""The change logs of all collections, sharing one Redis client."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.errors import Unsupported
from nearline.store.snapshot import Store
from retrieval.changelog.redis_log import RedisLog
from retrieval.redis_client.connection import Redis, connect
from retrieval.redis_client.durability import Durability
from retrieval.users.states import UserStates

# Longer than any command may take: callers that wait set their own limit.
REDIS_TIMEOUT_S = 10.0


class ChangeLogs:
    """Provides the change log of each collection.

    Args:
        store: Names the log of each collection.
        url: Redis, see `parse_redis_url`; empty if there is none.
        who: The creator to record for new logs.
        users_url: Redis that holds users and sessions; empty if it is the one in `url`.
        replicas: Number of Redis replicas that must have a change on disk before it is
            acknowledged; see `Durability`.
    Raises: SettingsError: `url` is invalid.
    """

    def __init__(
        self, store: Store, url: str, *, who: str, users_url: str = "", replicas: int | None = None
    ) -> None:
        self._store = store
        self._who = who
        # An unanswered append may have been executed: never resend it automatically.
        self._client = connect(url, timeout_s=REDIS_TIMEOUT_S, retries=0) if url else None
        self._durability = Durability(self._client, replicas) if self._client else None
        self._users_client = self._client
        if users_url:
            self._users_client = connect(users_url, timeout_s=REDIS_TIMEOUT_S, retries=0)
        self._user_states = None
        if self._users_client is not None:
            durability = Durability(self._users_client, replicas)
            self._user_states = UserStates(self._users_client, durability)
        self._logs: dict[str, RedisLog] = {}

    def __bool__(self) -> bool:
        """Returns whether a Redis is configured."""
        return self._client is not None

    @property
    def user_states(self) -> UserStates | None:
        """The state of users and sessions; None without a Redis."""
        return self._user_states

    @property
    def clients(self) -> Sequence[Redis]:
        """The clients of the servers that hold logs, users and sessions."""
        found = (self._client, self._users_client)
        return [one for one in dict.fromkeys(found) if one is not None]

    def log(self, collection: str) -> RedisLog:
        """Returns the shared log of a collection, for appending, trimming and queries.

        Raises: Unsupported: no Redis is configured. InvalidRequest: not a valid collection name.
        """
        log = self._logs.get(collection)
        if log is None:
            log = self._logs[collection] = self.reader(collection)
        return log

    def reader(self, collection: str) -> RedisLog:
        """Returns a new object for the log of a collection; each follower needs its own.

        Raises: as `log`.
        """
        if self._client is None or self._durability is None:
            raise Unsupported(
                "live changes need a change log: start the service with --redis URL (nearline up: "
                "without --no-redis)"
            )
        work = (self._store, collection, self._client, self._durability, self._who)
        return RedisLog(*work, self._user_states)

    def forget(self, collection: str) -> None:
        """Forgets the log of a collection that was dropped."""
        self._logs.pop(collection, None)

    async def close(self) -> None:
        """Closes the connections; pending reads fail with NotReady."""
        if self._client is not None:
            await self._client.aclose()
        if self._users_client not in (None, self._client):
            await self._users_client.aclose()
