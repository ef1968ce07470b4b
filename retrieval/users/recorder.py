"""Records interactions with optimistic concurrency: reads, then writes if nothing changed."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Sequence
from itertools import chain, islice, starmap
from typing import NamedTuple

from nearline.contract.recommendations import MAX_EVENT_ID_BYTES, Interaction, RecordReply
from nearline.errors import NotReady
from nearline.retry import SAME_KEY
from nearline.times import from_us, to_us
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
from retrieval.users.dictionary import Dictionary, DictionaryEntries, Encoding
from retrieval.users.keys import OwnerKeys, session_keys, user_keys
from retrieval.users.log_entries import encode_entry
from retrieval.users.records import ALL_EXIST, NEEDED_BY, MadeUp

_ATTEMPTS = 32
_INLINE_BYTES = 16_384  # Up to this many are processed on the event loop, more in a thread.
_INTERACTION_BYTES = 64  # What a new interaction counts as.
_UNKNOWN = f"it is unknown whether all was recorded: {SAME_KEY}"
DEDUP_WINDOW_S = 86_400
# Of each user and session, within this time; at least as many as a request has interactions.
RECENT_EVENTS = 4_096
DIGEST_BYTES = 8
_ENTRY = struct.Struct(f"<{DIGEST_BYTES}sI")


class OwnerInteraction(NamedTuple):
    """An interaction of one owner.

    digest: Digest of the event id, b"" without one. time_us: Microseconds since 1970.
    words: The log entry; empty for a session if the user has the entry.
    """

    item_id: str
    kind: str
    time_us: int
    weight: float | None
    digest: bytes
    words: Sequence[str]


class OwnerBatch(NamedTuple):
    """A user or a session, with new interactions in the order of the request."""

    keys: OwnerKeys
    ttl_s: int
    interactions: list[OwnerInteraction]


def partition_by_owner(
    collection: str,
    interactions: Sequence[Interaction],
    idempotency_key: str,
    now_us: int,
    ttl_s: tuple[int, int],
) -> list[OwnerBatch]:
    """Partitions valid interactions by owner, users first.

    Args:
        now_us: Time of interactions without one.
        ttl_s: Seconds to keep a user and a session.
    """
    users: dict[str, OwnerBatch] = {}
    sessions: dict[str, OwnerBatch] = {}
    for place, one in enumerate(interactions):
        time = from_us(now_us) if one.time is None else one.time
        event_id = one.event_id or _made_event_id(idempotency_key, place)
        digest = event_digest(event_id) if event_id else b""
        words = encode_entry(one, to_us(time), event_id)
        entry = OwnerInteraction(one.item_id, one.kind, to_us(time), one.weight, digest, words)
        if one.user_id:
            if one.user_id not in users:
                users[one.user_id] = OwnerBatch(user_keys(collection, one.user_id), ttl_s[0], [])
            users[one.user_id].interactions.append(entry)
            entry = entry._replace(words=())
        if one.session_id:
            if one.session_id not in sessions:
                keys = session_keys(collection, one.session_id)
                sessions[one.session_id] = OwnerBatch(keys, ttl_s[1], [])
            sessions[one.session_id].interactions.append(entry)
    return [*users.values(), *sessions.values()]


def _made_event_id(idempotency_key: str, place: int) -> str:
    if not idempotency_key:
        return ""
    made = f"{idempotency_key}/{place}"
    if len(made.encode()) <= MAX_EVENT_ID_BYTES:
        return made
    return f"{hashlib.blake2b(idempotency_key.encode(), digest_size=32).hexdigest()}/{place}"


def event_digest(event_id: str) -> bytes:
    """Returns the 8-byte digest of an event id."""
    return hashlib.blake2b(event_id.encode(), digest_size=DIGEST_BYTES).digest()


def read_recent(raw: bytes, now_s: int) -> dict[bytes, int]:
    """Returns when each event of the last 24 hours was recorded, in seconds, by digest."""
    return {digest: at for digest, at in _ENTRY.iter_unpack(raw) if at > now_s - DEDUP_WINDOW_S}


def write_recent(recent: dict[bytes, int]) -> bytes:
    """Encodes the newest events for `read_recent`."""
    newest = islice(recent.items(), max(0, len(recent) - RECENT_EVENTS), None)
    return b"".join(starmap(_ENTRY.pack, newest))


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
    made_up: MadeUp = ALL_EXIST,
) -> RecordReply:
    """Records the interactions of owners; returns once they are durable.

    Args:
        client: Must not retry commands automatically.
        durability, dictionary: Durability and dictionary that use the same client.
        owners: As returned by `partition_by_owner`.
        now_s: Seconds since 1970.
        ring: Events that a history keeps.
        log_ms: How long the log keeps an entry.
        made_up: Which items do not exist. Optional.
    Raises: As `Dictionary.number`.
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
        stored = sum(map(len, chain.from_iterable(states)))
        few = stored + _INTERACTION_BYTES * len(entries) <= _INLINE_BYTES
        histories = _unpack(states) if few else await asyncio.to_thread(_unpack, states)
        existing = [history for history in histories if history is not None]
        encoding = await dictionary.encoding(
            existing, items, kinds, refresh=bool(found), made_up=made_up
        )
        plan = (left, states, histories, encoding, found, now_s, ring, log_ms)
        writes = _plan(*plan) if few else await asyncio.to_thread(_plan, *plan)
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


def _unpack(states: Sequence[tuple[bytes, bytes]]) -> list[PackedHistory | None]:
    return [unpack(blob) if blob else None for blob, _ in states]


def _plan(
    owners: Sequence[OwnerBatch],
    states: Sequence[tuple[bytes, bytes]],
    histories: Sequence[PackedHistory | None],
    encoding: Encoding,
    found: dict[str, str],
    now_s: int,
    ring: int,
    log_ms: int,
) -> list[OwnerWrite]:
    names = encoding.names
    writes = []
    for owner, (blob, raw), existing in zip(owners, states, histories, strict=True):
        recent = read_recent(raw, now_s)
        fresh = []
        for entry in owner.interactions:
            if entry.digest not in recent:
                fresh.append(entry)
            if entry.digest:
                recent.setdefault(entry.digest, now_s)
        history = _in_current(existing, encoding)
        if fresh:
            history = insert_events(history, _encode(fresh, names), ring)
        unchanged = existing is None or existing.dictionary_id == names.id
        # A history whose dictionary is lost has no events, but is not removed by a duplicate.
        keep = not fresh and (unchanged or not history.items)
        packed = blob if keep else pack(history, names.id)
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


def _in_current(existing: PackedHistory | None, encoding: Encoding) -> EncodedHistory:
    """Returns a history encoded with the current dictionary; empty if its own is lost."""
    if existing is None:
        return NO_HISTORY
    dictionary_id, history = existing
    if dictionary_id == encoding.names.id:
        return history
    replaced = encoding.replaced[dictionary_id]
    return replaced.translate(history, encoding.names) if replaced.reads(history) else NO_HISTORY


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
                # The first command sends the script, the other commands only its digest.
                run = pipe.evalsha if number else pipe.eval
                run(
                    digest if number else lua_scripts.RECORD,
                    len(owner.keys),
                    *owner.keys,
                    *arguments,
                )
            replies, kept = await durability.execute(pipe)
            for reply in replies:
                if isinstance(reply, Exception) and not str(reply).startswith("DICT "):
                    raise reply
    except NotReady as error:
        raise NotReady(f"{error.message}; {_UNKNOWN}", retry_after_s=error.retry_after_s) from error
    durability.check_reply(kept)
    return list(replies)
