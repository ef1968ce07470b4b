"""Records interactions with optimistic concurrency: reads, then writes if nothing changed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from nearline.contract.recommendations import RecordReply
from nearline.errors import NotReady
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import RETRY_AFTER_S, Durability
from retrieval.users import lua_scripts
from retrieval.users.codec import (
    NO_HISTORY,
    EncodedHistory,
    PackedHistory,
    insert_events,
    pack,
    unpack,
)
from retrieval.users.dedup_window import DEDUP_WINDOW_S, read_recent, write_recent
from retrieval.users.dictionary import Dictionary, DictionaryEntries
from retrieval.users.partition_by_owner import OwnerBatch, OwnerInteraction
from retrieval.users.records import NEEDED_BY

_ATTEMPTS = 32
_FEW = 16  # Up to this many owners are processed on the event loop, more in a thread.
_UNKNOWN = "it is unknown whether all was recorded; retry with the same idempotency key"


class OwnerWrite(NamedTuple):
    """The write of one owner. fresh: Interactions that were not recorded before."""

    owner: OwnerBatch
    fresh: Sequence[OwnerInteraction]
    arguments: Sequence[str | bytes | int]


async def record_interactions(
    client: Redis,
    durability: Durability,
    dictionary: Dictionary,
    owners: Sequence[OwnerBatch],
    *,
    now_s: int,
    ring: int,
    log_ms: int,
) -> RecordReply:
    """Records the interactions of owners; returns once they are durable.

    Args:
        client: Must not retry commands automatically.
        durability, dictionary: Durability and dictionary that use the same client.
        owners: As returned by `partition_by_owner`.
        now_s: Seconds since 1970.
        ring: Events that a history keeps.
        log_ms: How long the log keeps an entry.
    Raises: NotReady.
    """
    recorded = duplicates = 0
    # By the key of a partition's dictionary: the id that a script found instead of ours.
    found: dict[str, str] = {}
    left = list(owners)
    for _ in range(_ATTEMPTS):
        states = await _read(client, left)
        entries = [entry for owner in left for entry in owner.interactions]
        items = list(dict.fromkeys(entry.item_id for entry in entries))
        kinds = list(dict.fromkeys(entry.kind for entry in entries))
        names = await dictionary.number(items, kinds, refresh=bool(found))
        plan = (left, states, names, found, now_s, ring, log_ms)
        writes = _plan(*plan) if len(left) <= _FEW else await asyncio.to_thread(_plan, *plan)
        left, found = [], {}
        for write, reply in zip(writes, await _send(client, durability, writes), strict=True):
            if isinstance(reply, Exception):
                found[write.owner.keys.dictionary] = str(reply).partition(" ")[2]
            if reply != 1:
                left.append(write.owner)
                continue
            logged = sum(bool(entry.words) for entry in write.owner.interactions)
            new = sum(bool(entry.words) for entry in write.fresh)
            recorded += new
            duplicates += logged - new
        if not left:
            return RecordReply(recorded, duplicates)
    raise NotReady(
        f"others wrote to {len(left)} of these users or sessions during {_ATTEMPTS} attempts to "
        f"record them; {_UNKNOWN}",
        retry_after_s=RETRY_AFTER_S,
    )


async def _read(client: Redis, owners: Sequence[OwnerBatch]) -> list[tuple[bytes, bytes]]:
    """Returns the history and the recent events of each owner."""
    async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
        for owner in owners:
            pipe.hget(owner.keys.state, "h")
            pipe.get(owner.keys.recent)
        replies = [reply or b"" for reply in await pipe.execute()]
    return list(zip(replies[::2], replies[1::2], strict=True))


def _plan(
    owners: Sequence[OwnerBatch],
    states: Sequence[tuple[bytes, bytes]],
    names: DictionaryEntries,
    found: dict[str, str],
    now_s: int,
    ring: int,
    log_ms: int,
) -> list[OwnerWrite]:
    writes = []
    for owner, (blob, raw) in zip(owners, states, strict=True):
        recent = read_recent(raw, now_s)
        fresh = []
        for entry in owner.interactions:
            if entry.digest not in recent:
                fresh.append(entry)
            if entry.digest:
                recent.setdefault(entry.digest, now_s)
        dictionary_id, history = unpack(blob) if blob else PackedHistory(names.id, NO_HISTORY)
        if dictionary_id != names.id:
            history = NO_HISTORY
        packed = (
            pack(insert_events(history, _encode(fresh, names), ring), names.id) if fresh else blob
        )
        arguments: list[str | bytes | int] = [
            names.id.hex(),
            found.get(owner.keys.dictionary, ""),
            hashlib.sha1(blob).hexdigest(),
            hashlib.sha1(raw).hexdigest(),
            packed,
            write_recent(recent),
            owner.ttl_s,
            DEDUP_WINDOW_S,
            log_ms,
        ]
        for entry in fresh:
            if entry.words:
                arguments += [len(entry.words), *entry.words]
        writes.append(OwnerWrite(owner, fresh, arguments))
    return writes


def _encode(entries: Sequence[OwnerInteraction], names: DictionaryEntries) -> EncodedHistory:
    """Returns interactions as numbers, newest first; at equal times, later ones first."""
    ordered = sorted(reversed(entries), key=lambda entry: entry.time_us, reverse=True)
    return EncodedHistory(
        [names.item_numbers[entry.item_id] for entry in ordered],
        [entry.time_us // 1_000_000 for entry in ordered],
        [names.kind_numbers[entry.kind] for entry in ordered],
        [entry.weight for entry in ordered],
    )


async def _send(
    client: Redis, durability: Durability, writes: Sequence[OwnerWrite]
) -> list[int | Exception]:
    """Sends the writes; returns 1, 0 (another writer was faster), or a dictionary error for each.

    Raises: NotReady.
    """
    digest = hashlib.sha1(lua_scripts.RECORD.encode()).hexdigest()
    try:
        async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
            for number, (owner, _, arguments) in enumerate(writes):
                # The first command sends the script, the others its digest.
                run = pipe.evalsha if number else pipe.eval
                run(
                    digest if number else lua_scripts.RECORD,
                    len(owner.keys),
                    *owner.keys,
                    *arguments,
                )
            pipe.execute_command(*durability.command)
            *replies, kept = await pipe.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception) and not str(reply).startswith("DICT "):
                    raise reply
    except NotReady as error:
        raise NotReady(f"{error.message}; {_UNKNOWN}", retry_after_s=error.retry_after_s) from error
    durability.check_reply(kept)
    return list(replies)
