"""The change log of a collection, as commands open it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import NotFound
from nearline.snapshot import Store
from nearline_cli.terminal import options

if TYPE_CHECKING:
    from retrieval.changelog.redis_log import RedisLog

# Where `nearline up` starts its Redis.
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
    """Yields the change log of a collection for the block.

    Args:
        redis: Where it is; empty: where `nearline up` has it.
    Raises: NotFound: the collection has none.
    """
    from retrieval.changelog.registry import ChangeLogs
    from retrieval.snapshots.aliases import operator_name

    if store.log_in_force(collection) is None:
        raise NotFound(
            f"collection {collection!r} has no change log in {store.url}; it gets one when items "
            "of it are first changed"
        )
    logs = ChangeLogs(store, redis or _DEFAULT_REDIS, who=operator_name())
    try:
        yield logs.log(collection)
    finally:
        await logs.close()


@contextlib.asynccontextmanager
async def open_change_log_if_any(
    store: str, collection: str, redis: str
) -> AsyncIterator[RedisLog | None]:
    """Yields the change log of a collection for the block; None where it has none."""
    opened = Store.open(store)
    if opened.log_in_force(collection) is None:
        yield None
        return
    async with open_change_log(opened, collection, redis) as log:
        yield log
