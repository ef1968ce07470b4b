"""The log of interactions: encodes, decodes, and reads its entries page by page."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from nearline.contract.recommendations import Interaction
from nearline.store.snapshot import PARTITIONS
from nearline.times import from_us
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.users import lua_scripts
from retrieval.users.keys import OwnerKeys, log_key
from retrieval.users.records import NEEDED_BY, LoggedInteraction

# Entries that Redis scans, and links that it follows, in one call of about a millisecond.
_SCANNED = 1_000
_FOLLOWED = 256
# Entries in one reply; parsing an entry blocks the event loop for about 40 microseconds.
_MAX_ENTRIES = 512


def encode_entry(interaction: Interaction, time_us: int, event_id: str) -> Sequence[str]:
    """Returns an entry as alternating names and values, user first; empty values are omitted."""
    weight, position = interaction.weight, interaction.position
    fields = {
        "user": interaction.user_id,
        "session": interaction.session_id,
        "item": interaction.item_id,
        "kind": interaction.kind,
        "time": str(time_us),
        "weight": "" if weight is None else repr(float(weight)),
        "list": interaction.list_id,
        "position": "" if position is None else str(position),
        "event": event_id,
    }
    return [word for name, value in fields.items() if value for word in (name, value)]


def decode_logged_interaction(fields: Mapping[bytes, bytes]) -> LoggedInteraction:
    """Returns the fields of an entry that a build needs."""
    return LoggedInteraction(
        fields.get(b"user", b"").decode(),
        fields.get(b"session", b"").decode(),
        fields[b"item"].decode(),
        fields[b"kind"].decode(),
        int(fields[b"time"]),
        float(fields[b"weight"]) if b"weight" in fields else None,
        fields.get(b"list", b"").decode(),
    )


def decode_interaction(fields: Mapping[bytes, bytes]) -> Interaction:
    """Returns all fields of an entry."""
    logged = decode_logged_interaction(fields)
    return Interaction(
        item_id=logged.item_id,
        user_id=logged.user_id,
        session_id=logged.session_id,
        kind=logged.kind,
        time=from_us(logged.time_us),
        weight=logged.weight,
        list_id=logged.list_id,
        position=int(fields[b"position"]) if b"position" in fields else None,
        event_id=fields.get(b"event", b"").decode(),
    )


class UserLogEntry(NamedTuple):
    """An entry of a user, with its id in the stream."""

    entry_id: bytes
    fields: Mapping[bytes, bytes]


async def entries_of_user(
    client: Redis, keys: OwnerKeys, user_id: str, last: bytes, enough: float = math.inf
) -> Sequence[UserLogEntry]:
    """Returns the entries of a user, oldest first.

    Redis scans only entries that versions of Nearline without links logged, until they are trimmed.

    Args:
        keys: The keys of the user.
        last: Id of the user's last entry; empty if there is none.
        enough: Newest entries after which no older ones are read. Optional.
    Raises: NotReady.
    """
    linked: list[UserLogEntry] = []
    unlinked: list[UserLogEntry] = []
    for entries, script, names, first, limits in (
        (linked, lua_scripts.FOLLOW, (keys.log,), last, (_FOLLOWED,)),
        (unlinked, lua_scripts.FIND, (keys.log, keys.links), b"-", (_SCANNED, user_id)),
    ):
        after = first
        while after and len(linked) < enough:
            async with translate_redis_errors(NEEDED_BY):
                reply: Any = await client.eval(script, len(names), *names, after, *limits)
            after, found = reply
            entries += [
                UserLogEntry(entry_id, dict(zip(words[::2], words[1::2], strict=True)))
                for entry_id, words in found
            ]
    return [*unlinked, *reversed(linked)]


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


async def count_entries(client: Redis, collection: str) -> int:
    """Returns the number of entries in the log of a collection.

    Raises: NotReady.
    """
    async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
        for partition in range(PARTITIONS):
            pipe.xlen(log_key(collection, partition))
        return sum(await pipe.execute())
