"""Reads the log of interactions page by page, for one user or for the next build."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from nearline.store.snapshot import PARTITIONS
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.users import lua_scripts
from retrieval.users.keys import log_key
from retrieval.users.log_entries import decode_logged_interaction
from retrieval.users.records import NEEDED_BY, LoggedInteraction

# Entries that Redis scans in one call, about a millisecond.
_SCANNED = 1_000
# Entries in one reply; parsing one blocks the event loop for about 40 microseconds.
_MAX_ENTRIES = 512


class UserLogEntry(NamedTuple):
    """An entry of a user, with its id in the stream."""

    entry_id: bytes
    fields: Mapping[bytes, bytes]


async def entries_of_user(
    client: Redis, log: str, user_id: str, upto: bytes = b"+"
) -> AsyncIterator[Sequence[UserLogEntry]]:
    """Yields the entries of a user in pages, oldest first.

    Redis scans the whole log of the partition.

    Args:
        log: Key of the log.
        upto: Id of the last entry to scan.
    Raises: NotReady.
    """
    after = b"-"
    while after:
        async with translate_redis_errors(NEEDED_BY):
            reply: Any = await client.eval(
                lua_scripts.FIND, 1, log, user_id, after, upto, str(_SCANNED)
            )
        last, found = reply
        if found:
            yield [
                UserLogEntry(entry_id, dict(zip(words[::2], words[1::2], strict=True)))
                for entry_id, words in found
            ]
        after = b"(" + last if last else b""


async def all_entries(client: Redis, collection: str) -> AsyncIterator[LoggedInteraction]:
    """Yields the log of a collection, partition by partition, oldest first in each.

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
