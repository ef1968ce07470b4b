"""Opens the change log of a collection for commands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import NotFound
from nearline.store.snapshot import Store
from nearline_cli.local.bundled_redis import running_redis
from nearline_cli.terminal import options

if TYPE_CHECKING:
    from index_builder.options.build_options import BuildOptions
    from retrieval.changelog.redis_log import RedisLog

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
    from retrieval.changelog.registry import ChangeLogs
    from retrieval.snapshots.aliases import operator_name

    if store.log_in_force(collection) is None:
        raise NotFound(
            f"collection {collection!r} has no change log in {store.url}; the first change of an "
            "item creates it"
        )
    users = os.environ.get("NEARLINE_REDIS_USERS", "")
    url = redis or running_redis(store.files) or _DEFAULT_REDIS
    logs = ChangeLogs(store, url, who=operator_name(), users_url=users)
    try:
        yield logs.log(collection)
    finally:
        await logs.close()


@contextlib.asynccontextmanager
async def open_change_log_if_any(
    store: str, collection: str, redis: str
) -> AsyncIterator[RedisLog | None]:
    """Yields the change log of a collection for the duration of the block, or None if it has
    none.
    """
    opened = Store.open(store)
    if opened.log_in_force(collection) is None:
        yield None
        return
    async with open_change_log(opened, collection, redis) as log:
        yield log


async def with_recorded_users(options: BuildOptions, log: RedisLog | None) -> BuildOptions:
    """Returns build options that add recorded and imported interactions, and leave out deleted
    users.

    Args:
        options: Options of the build.
        log: Change log of the collection, if it has one.
    Raises:
        NotReady: Redis is unavailable.
    """
    from index_builder.interactions.imported_interactions import add_recorded_and_imported

    states = None if log is None else log.user_states()
    if states is not None:
        options = replace(options, deleted_users=partial(states.deleted, options.collection))
    learning = options.training
    if learning is None:
        return options
    joined = await add_recorded_and_imported(
        learning.interactions,
        states,
        Store.open(options.store),
        options.collection,
        learning.kind_weights,
    )
    learning = replace(learning, interactions=joined.interactions, recorded=joined.added)
    return replace(options, training=learning)
