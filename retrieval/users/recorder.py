"""Records interactions: reads what is there, writes what is new, again if somebody was faster."""

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
_FEW = 16  # Work on no more owners than these is done at once, not in a thread.
_UNKNOWN = "whether all was recorded is not known: try again with the same idempotency key"


class OwnerWrite(NamedTuple):
    """What becomes of one owner. fresh: Lines that were not recorded before."""

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
    """Records what owners got; returns when it is durable.

    Args:
        client: Sends nothing again by itself.
        durability, dictionary: Of the same client.
        owners: As `deal` gives them.
        now_s: Seconds since 1970.
        ring: Events that a history keeps.
        log_ms: How long the log keeps an entry.
    Raises: NotReady.
    """
    recorded = duplicates = 0
    # By the key of a partition's dictionary: the id that a script found in the place of ours.
    found: dict[str, str] = {}
    left = list(owners)
    for _ in range(_ATTEMPTS):
        states = await _read(client, left)
        lines = [line for owner in left for line in owner.lines]
        items = list(dict.fromkeys(line.item_id for line in lines))
        kinds = list(dict.fromkeys(line.kind for line in lines))
        names = await dictionary.number(items, kinds, again=bool(found))
        plan = (left, states, names, found, now_s, ring, log_ms)
        writes = _plan(*plan) if len(left) <= _FEW else await asyncio.to_thread(_plan, *plan)
        left, found = [], {}
        for write, reply in zip(writes, await _send(client, durability, writes), strict=True):
            if isinstance(reply, Exception):
                found[write.owner.keys.dictionary] = str(reply).partition(" ")[2]
            if reply != 1:
                left.append(write.owner)
                continue
            logged = sum(bool(line.words) for line in write.owner.lines)
            new = sum(bool(line.words) for line in write.fresh)
            recorded += new
            duplicates += logged - new
        if not left:
            return RecordReply(recorded, duplicates)
    raise NotReady(
        f"others wrote to {len(left)} of these users or sessions {_ATTEMPTS} times while this was "
        f"to be recorded; {_UNKNOWN}",
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
        for line in owner.lines:
            if line.digest not in recent:
                fresh.append(line)
            if line.digest:
                recent.setdefault(line.digest, now_s)
        dictionary_id, history = unpack(blob) if blob else PackedHistory(names.id, NO_HISTORY)
        if dictionary_id != names.id:
            history = NO_HISTORY
        packed = pack(insert_events(history, _new(fresh, names), ring), names.id) if fresh else blob
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
        for line in fresh:
            if line.words:
                arguments += [len(line.words), *line.words]
        writes.append(OwnerWrite(owner, fresh, arguments))
    return writes


def _new(lines: Sequence[OwnerInteraction], names: DictionaryEntries) -> EncodedHistory:
    """Returns lines as numbers, newest first; of those of one time the last first."""
    ordered = sorted(reversed(lines), key=lambda line: line.time_us, reverse=True)
    return EncodedHistory(
        [names.item_numbers[line.item_id] for line in ordered],
        [line.time_us // 1_000_000 for line in ordered],
        [names.kind_numbers[line.kind] for line in ordered],
        [line.weight for line in ordered],
    )


async def _send(
    client: Redis, durability: Durability, writes: Sequence[OwnerWrite]
) -> list[int | Exception]:
    """Writes; gives for each 1, 0 (somebody was faster), or the refusal of the dictionary.

    Raises: NotReady.
    """
    digest = hashlib.sha1(lua_scripts.RECORD.encode()).hexdigest()
    try:
        async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
            for number, (owner, _, arguments) in enumerate(writes):
                # The first brings the script, the others name it.
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
