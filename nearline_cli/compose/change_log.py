"""Opens the change log of a collection for commands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.errors import NotFound
from nearline.store.snapshot import Store
from nearline_cli.local.bundled_redis import running_redis
from nearline_cli.terminal import options

if TYPE_CHECKING:
    from retrieval.changelog.redis_log import RedisLog
    from retrieval.users.states import UserStates

# Address of the Redis that `nearline up` starts if no port is named.
_DEFAULT_REDIS = f"redis://{options.DEFAULT_HOST}:{options.DEFAULT_PORT + 4}/0"
RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis that holds the log of live changes. \\[default: the one of nearline up]",
    ),
]


@contextlib.asynccontextmanager
async def open_change_log(store: Store, collection: str, redis: str) -> AsyncIterator[RedisLog]:
    """Yields the change log of a collection for the duration of the block.

    Args:
        store: The store.
        collection: Name of the collection.
        redis: URL of its Redis. If empty, that of the `nearline up` that serves the store. Users
            are in the Redis in NEARLINE_REDIS_USERS, if set.
    Raises:
        NotFound: The collection has no change log.
    """
    if store.log_in_force(collection) is None:
        raise NotFound(
            f"collection {collection!r} has no change log in {store.url}; the first change of an "
            "item creates it"
        )
    async with _open(
        store, collection, redis or running_redis(store.files) or _DEFAULT_REDIS
    ) as log:
        yield log


class Recorded(NamedTuple):
    """The state of a collection in Redis.

    changes: Its change log; None if it has none. states: Its users; None if no Redis is known.
    """

    changes: RedisLog | None
    states: UserStates | None


@contextlib.asynccontextmanager
async def open_recorded(store: str, collection: str, redis: str) -> AsyncIterator[Recorded]:
    """Yields what Redis holds of a collection for the duration of the block.

    Args: See `open_change_log`. Without a change log, no Redis is needed.
    """
    opened = Store.open(store)
    has_log = opened.log_in_force(collection) is not None
    url = redis or running_redis(opened.files) or (_DEFAULT_REDIS if has_log else "")
    if not url:
        yield Recorded(None, None)
        return
    async with _open(opened, collection, url) as log:
        yield Recorded(log if has_log else None, log.user_states())


@contextlib.asynccontextmanager
async def _open(store: Store, collection: str, url: str) -> AsyncIterator[RedisLog]:
    from retrieval.changelog.registry import ChangeLogs
    from retrieval.snapshots.aliases import operator_name

    users = os.environ.get("NEARLINE_REDIS_USERS", "")
    logs = ChangeLogs(store, url, who=operator_name(), users_url=users)
    try:
        yield logs.log(collection)
    finally:
        await logs.close()
