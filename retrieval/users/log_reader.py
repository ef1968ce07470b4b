"""The log of interactions, read page by page, for one user or for the next build."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from nearline.snapshot import PARTITIONS
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.users import lua_scripts
from retrieval.users.keys import log_key
from retrieval.users.log_entries import decode_logged_interaction
from retrieval.users.records import NEEDED_BY, LoggedInteraction

# What Redis looks at in one step, about a millisecond.
_LOOKED_AT = 1_000
# What comes in one reply: its parsing holds the event loop, about 40 microseconds an entry.
_MAX_ENTRIES = 512


class UserLogEntry(NamedTuple):
    """An entry of a user and its place in the log."""

    place: bytes
    fields: Mapping[bytes, bytes]


async def entries_of_user(
    client: Redis, log: str, user_id: str, upto: bytes = b"+"
) -> AsyncIterator[Sequence[UserLogEntry]]:
    """Yields the entries of a user, oldest first, some at a time.

    The whole log of the partition is looked at, in Redis.

    Args:
        client: Redis.
        log: Key of the log.
        user_id: Whose.
        upto: The last entry to look at.
    Raises: NotReady.
    """
    after = b"-"
    while after:
        async with translate_redis_errors(NEEDED_BY):
            reply: Any = await client.eval(
                lua_scripts.FIND, 1, log, user_id, after, upto, str(_LOOKED_AT)
            )
        last, found = reply
        if found:
            yield [
                UserLogEntry(place, dict(zip(words[::2], words[1::2], strict=True)))
                for place, words in found
            ]
        after = b"(" + last if last else b""


async def all_entries(client: Redis, collection: str) -> AsyncIterator[LoggedInteraction]:
    """Yields what the log of a collection has, partition by partition, oldest first in each.

    Raises: NotReady.
    """
    for partition in range(PARTITIONS):
        after = "-"
        while after:
            async with translate_redis_errors(NEEDED_BY):
                entries: Any = await client.xrange(
                    log_key(collection, partition), min=after, count=_MAX_ENTRIES
                )
            for _, fields in entries:
                yield decode_logged_interaction(fields)
            after = f"({entries[-1][0].decode()}" if len(entries) == _MAX_ENTRIES else ""
