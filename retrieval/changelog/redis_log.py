"""The change log of a collection in Redis: a stream for each of its 64 partitions.

A partition is in one slot of a Redis Cluster, and its nodes take what belongs to their partitions.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nearline.contract import WriteOutcome
from nearline.errors import InvalidRequest, NearlineError, NotReady, SnapshotMismatch
from nearline.retry import SAME_KEY
from nearline.store.snapshot import PARTITIONS, Store, check_collection, partition_of
from retrieval.changelog import lua_scripts
from retrieval.changelog.change_log import AppendResult, LogDiverged, LogState, PartitionEnd
from retrieval.changelog.codec import content_digest, encode_change
from retrieval.changelog.creation import foreign_log_id, log_mismatch_error, open_log
from retrieval.changelog.entry_decoder import (
    HEAD_FIELDS,
    EntryChain,
    PartitionHead,
    RawEntry,
    decode_entries,
    parse_head,
)
from retrieval.changelog.keys import partition_keys
from retrieval.changelog.records import ChangeEntry, ChangeKind, ChangeResult, ChangeWrite
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.cluster import cluster_of
from retrieval.redis_client.connection import Redis, describe_refusal, translate_redis_errors
from retrieval.redis_client.durability import NEEDED_BY, RETRY_AFTER_S, Durability
from retrieval.redis_client.streams import read_streams
from retrieval.users.states import UserStates

IDEMPOTENT_S = 86_400
_KINDS = {ChangeKind.UPSERT: "U", ChangeKind.DELETE: "D", ChangeKind.ATTRIBUTES: "A"}
_OUTCOMES = {
    "A": WriteOutcome.APPLIED,
    "R": WriteOutcome.REPLACED,
    "D": WriteOutcome.DELETED,
    "N": WriteOutcome.ABSENT,
    "U": WriteOutcome.UNCHANGED,
    "S": WriteOutcome.SUPERSEDED,
}


class AppendCall(NamedTuple):
    """The writes of a request to one partition. numbers: Positions of the writes in the request."""

    partition: int
    numbers: list[int]
    keys: list[str]
    arguments: list[str | bytes | int]


class AppendCalls(NamedTuple):
    """A request by partition. digest: `content_digest`; empty without an idempotency key."""

    calls: list[AppendCall]
    digest: str


def make_append_calls(
    collection: str,
    log_id: str,
    writes: Sequence[ChangeWrite],
    idempotency_key: str,
    replicas: int = 0,
) -> AppendCalls:
    """Splits a request by partition; see `lua_scripts.APPEND`."""
    digest = content_digest(writes) if idempotency_key else ""
    nonce = secrets.token_hex(8)
    calls: dict[int, AppendCall] = {}
    for number, write in enumerate(writes):
        partition = partition_of(write.change.document_id)
        call = calls.get(partition)
        if call is None:
            keys = partition_keys(collection, partition)
            names = [keys.meta, keys.log, keys.versions]
            if idempotency_key:
                names.append(keys.done(log_id, idempotency_key))
            first: list[str | bytes | int] = [log_id, nonce, digest, IDEMPOTENT_S, replicas]
            call = AppendCall(partition, [], names, first)
            calls[partition] = call
        call.numbers.append(number)
        call.arguments.extend(
            (
                write.change.document_id,
                _KINDS[write.change.kind],
                "" if write.base_version is None else write.base_version,
                write.base_position,
                "" if write.if_version is None else write.if_version,
                "" if write.as_of_us is None else write.as_of_us,
                encode_change(write.change),
            )
        )
    return AppendCalls(list(calls.values()), digest)


def parse_result(word: str, write: ChangeWrite) -> ChangeResult:
    """Parses the reply of the script to one write."""
    letter, version = word[0], int(word[1:])
    if letter != "C":
        return ChangeResult(_OUTCOMES[letter], version)
    found = f"it has version {version}" if version else "it was never changed, or does not exist"
    return ChangeResult(
        WriteOutcome.REJECTED,
        version,
        "CONFLICT",
        f"the change requires version {write.if_version} of the item, but {found}; read it again",
    )


_APPEND_TIMEOUT_S = 5.0
_REPLY_TIMEOUT_S = 5.0
# How often a reader verifies that it still reads the same log, even without new entries.
_CHECK_EVERY_S = 1.0
# Entries per reply: parsing blocks the event loop for about 40 microseconds per entry.
_MAX_ENTRIES = 512
_INLINE_BYTES = 16_384  # Entries of up to this many are decoded inline, larger ones in a thread.
_TRIM_ENTRIES = 64
_UNKNOWN = f"the changes may have been appended: {SAME_KEY}"
_NOTHING = "nothing was appended: try again"


class RedisLog:
    """The change log of one collection in Redis; see `ChangeLog`.

    For one reader: new entries are checked against those read before.

    Args:
        store: Names the current log.
        collection: Name of the collection.
        client: Must not resend commands automatically, and must wait longer than `_CHECK_EVERY_S`.
        durability: Durability of the same client.
        who: The creator to record for a new log.
        user_states: Users and sessions. Optional; None means in the same Redis.
    """

    def __init__(
        self,
        store: Store,
        collection: str,
        client: Redis,
        durability: Durability,
        who: str,
        user_states: UserStates | None = None,
    ) -> None:
        self._store = store
        self._collection = check_collection(collection)
        self._client = client
        self._durability = durability
        self._who = who
        self._user_states = user_states
        self._opening = asyncio.Lock()
        # The log being written and the log being read: writers switch to a new log as soon as they
        # encounter it, readers only in `state`.
        self._log_id = ""
        self._chain: EntryChain | None = None
        self._read_id = ""
        self._checked_at = 0.0

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    def user_states(self) -> UserStates:
        """Returns the states of the users of the collection."""
        return self._user_states or UserStates(self._client, self._durability)

    async def state(self) -> LogState:
        """Returns the extent of the current log; creates it if the store names none."""
        log_id = await self._open(refresh=True)
        heads = await self._heads(range(PARTITIONS), log_id)
        if log_id != self._read_id:
            self._read_id, self._chain = log_id, EntryChain(log_id)
        return LogState(
            Watermark(log_id, tuple(head.seq for head in heads.values())),
            Watermark(log_id, tuple(head.trimmed for head in heads.values())),
            tuple(head.nonce for head in heads.values()),
        )

    async def size_bytes(self) -> int:
        """Returns the memory of the log, as Redis estimates it. Raises: NotReady."""
        async with translate_redis_errors(NEEDED_BY), asyncio.timeout(_REPLY_TIMEOUT_S):
            async with self._client.pipeline(transaction=False) as pipe:
                for partition in range(PARTITIONS):
                    pipe.memory_usage(partition_keys(self._collection, partition).log)
                return sum(size or 0 for size in await pipe.execute())

    async def append(
        self,
        writes: Sequence[ChangeWrite],
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Appends changes; returns when they are durable."""
        limit = _APPEND_TIMEOUT_S if timeout_s is None else timeout_s
        sent = False
        try:
            async with asyncio.timeout(limit):
                await self._durability.check()
                log_id = await self._open()
                replicas = self._durability.replicas
                work = (self._collection, log_id, writes, idempotency_key, replicas)
                request = await asyncio.to_thread(make_append_calls, *work)
                if idempotency_key:
                    await self._claim(log_id, idempotency_key, request.digest)
                sent = True
                return await self._append(log_id, request, writes)
        except TimeoutError as error:
            raise NotReady(
                f"Redis did not answer within {limit:g} s; " + (_UNKNOWN if sent else _NOTHING),
                retry_after_s=RETRY_AFTER_S,
            ) from error

    async def read(
        self, after: Mapping[int, int], *, limit: int = 256, wait_s: float = 0.0
    ) -> list[ChangeEntry]:
        """Reads the next entries of some partitions."""
        if self._chain is None:
            self._read_id = await self._open()
            self._chain = EntryChain(self._read_id)
        chain = self._chain
        if not after:
            return []
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            left_s = max(until - loop.time(), 0.0)
            raw = await self._next(after, limit, min(left_s, _CHECK_EVERY_S))
            chain.check_complete(after, raw)
            unverified = not all(chain.knows(one, after[one]) for one in raw)
            if not raw or unverified or loop.time() >= self._checked_at + _CHECK_EVERY_S:
                for partition, head in (await self._heads(after, self._read_id)).items():
                    chain.check_head(partition, after[partition], head)
                self._checked_at = loop.time()
            if raw or loop.time() >= until:
                break
        for partition, entries in raw.items():
            chain.follow(partition, after[partition], entries)
        received = [entry for entries in raw.values() for entry in entries]
        if sum(len(entry.fields[b"change"]) for entry in received) <= _INLINE_BYTES:
            return decode_entries(received)
        return await asyncio.to_thread(decode_entries, received)

    def forget_read(self) -> None:
        """Forgets what was read: the next entries are not checked against it."""
        self._chain = None

    async def confirm(self, partitions: Iterable[int]) -> Mapping[int, PartitionEnd]:
        """Returns the ends of some partitions, which as many replicas have as a write needs."""
        log_id = await self._open()
        calls = [self._call(one, log_id) for one in partitions]
        replies = await self._run_as_writer(lua_scripts.CONFIRM, log_id, calls)
        return {
            call.partition: PartitionEnd(int(position), nonce)
            for call, (position, nonce) in zip(calls, replies, strict=True)
        }

    async def nonces(self, positions: Mapping[int, int]) -> Mapping[int, bytes]:
        """Returns the nonces of some entries, by partition; none for those that the log lacks."""
        heads = await self._heads(positions, await self._open())
        async with translate_redis_errors(NEEDED_BY), asyncio.timeout(_REPLY_TIMEOUT_S):
            async with self._client.pipeline(transaction=False) as pipe:
                for partition, position in positions.items():
                    name = partition_keys(self._collection, partition).log
                    pipe.xrange(name, f"{position}-0", f"{position + 1}-0")
                replies = await pipe.execute()
        found: dict[int, bytes] = {}
        for (partition, position), entries in zip(positions.items(), replies, strict=True):
            if heads[partition].seq == position:
                found[partition] = heads[partition].nonce
            for number, fields in entries:
                # The next one also tells the nonce of an entry that was trimmed.
                own = number == f"{position}-0".encode()
                found[partition] = fields[b"nonce" if own else b"before"]
        return found

    async def restore(
        self, partition: int, after: PartitionEnd, entries: Sequence[ChangeEntry]
    ) -> None:
        """Inserts entries that the log lost in a failover; returns when they are durable."""
        log_id = await self._open()
        call = self._call(partition, log_id, *after, secrets.token_hex(8))
        for entry in entries:
            change = entry.change
            letter, data = _KINDS[change.kind], encode_change(change)
            call.arguments.extend((change.document_id, letter, entry.time_us, entry.nonce, data))
        await self._run_as_writer(lua_scripts.RESTORE, log_id, [call])

    async def _run_as_writer(
        self, script: str, log_id: str, calls: Sequence[AppendCall]
    ) -> Sequence[Any]:
        """Runs a script as durably as those who write: they know how many replicas there are."""
        # The newest write counts: an operator may have lowered the number since.
        heads = await self._heads(range(PARTITIONS), log_id)
        replicas = max(heads.values(), key=lambda head: head.time_us).replicas
        durability = Durability(
            self._client, self._durability.replicas if replicas is None else replicas
        )
        await durability.check()
        return await self._run(script, log_id, calls, durability)

    def _call(self, partition: int, *arguments: str | bytes | int) -> AppendCall:
        keys = partition_keys(self._collection, partition)
        names = [keys.meta, keys.log, keys.versions]
        return AppendCall(partition, [], names, list(arguments))

    async def trim(self, upto: Watermark, archived: Mapping[int, PartitionEnd] = {}) -> int:
        """Removes all changes up to a position; returns their number."""
        log_id = await self._open()
        if upto.log_id != log_id:
            raise SnapshotMismatch(
                f"cannot trim change log {upto.log_id}: the current log is {log_id}"
            )
        total = 0
        partitions = [one for one, position in enumerate(upto.positions) if position]
        while partitions:
            calls = []
            for partition in partitions:
                last = archived.get(partition, PartitionEnd(0, b""))
                position = upto.positions[partition]
                calls.append(self._call(partition, log_id, position, _TRIM_ENTRIES, *last))
            replies = await self._run(lua_scripts.TRIM, log_id, calls)
            total += sum(removed for removed, _ in replies)
            partitions = [one for one, (_, more) in zip(partitions, replies, strict=True) if more]
        return total

    async def _open(self, *, refresh: bool = False) -> str:
        """Returns the id of the current log; reads it from the store if needed."""
        async with self._opening:
            if refresh or not self._log_id:
                record = await open_log(
                    self._store, self._collection, self._client, self._durability, self._who
                )
                self._log_id = record.log_id
            return self._log_id

    async def _claim(self, log_id: str, idempotency_key: str, digest: str) -> None:
        """Reserves an idempotency key for one request, whatever its partitions.

        Raises: InvalidRequest: the key belongs to another request.
        """
        name = partition_keys(self._collection, partition_of(idempotency_key)).asked(
            log_id, idempotency_key
        )
        async with translate_redis_errors(NEEDED_BY):
            first = await self._client.set(name, digest, nx=True, get=True, ex=IDEMPOTENT_S)
        if first is not None and first != digest.encode():
            raise _key_reuse_error()

    async def _append(
        self, log_id: str, request: AppendCalls, writes: Sequence[ChangeWrite]
    ) -> AppendResult:
        replies = await self._run(lua_scripts.APPEND, log_id, request.calls, self._durability)
        results: list[ChangeResult | None] = [None] * len(writes)
        heads: dict[int, int] = {}
        for call, (head, words) in zip(request.calls, replies, strict=True):
            heads[call.partition] = int(head)
            for number, word in zip(call.numbers, words.decode().split(" "), strict=True):
                results[number] = parse_result(word, writes[number])
        return AppendResult(
            [one for one in results if one is not None], Watermark(log_id).advanced(heads)
        )

    async def _run(
        self,
        script: str,
        log_id: str,
        calls: Sequence[AppendCall],
        durability: Durability | None = None,
    ) -> list[Any]:
        """Runs a script on several partitions; returns the replies.

        Raises: NotReady, SnapshotMismatch, InvalidRequest: as `append`.
        """
        digest = hashlib.sha1(script.encode()).hexdigest()
        try:
            async with (
                translate_redis_errors(NEEDED_BY),
                self._client.pipeline(transaction=False) as pipe,
            ):
                for number, call in enumerate(calls):
                    # The first call sends the script, the others refer to it by digest.
                    run = pipe.evalsha if number else pipe.eval
                    run(digest if number else script, len(call.keys), *call.keys, *call.arguments)
                kept = None
                if durability is None:
                    replies = await pipe.execute(raise_on_error=False)
                else:
                    replies, kept = await durability.execute(pipe)
        except NotReady as error:
            raise NotReady(
                f"{error.message}; {_UNKNOWN}", retry_after_s=error.retry_after_s
            ) from error
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, Exception):
                raise self._reply_error(log_id, call.partition, reply)
        if durability is not None:
            durability.check_reply(kept)
        return list(replies)

    def _reply_error(self, log_id: str, partition: int, reply: Exception) -> NearlineError:
        found = foreign_log_id(reply)
        if found is not None:
            # The next write reads the current log from the store.
            self._log_id = ""
            return log_mismatch_error(self._collection, log_id, partition, found)
        if str(reply) == "DIVERGED":
            return LogDiverged(
                f"partition {partition} of change log {log_id} lacks changes that are archived, "
                "so it stays as it is: archive it first, which restores them"
            )
        if str(reply) == "KEYUSED":
            return _key_reuse_error()
        return NotReady(
            f"{describe_refusal(reply)}; {_UNKNOWN}",
            retry_after_s=RETRY_AFTER_S,
        )

    async def _next(
        self, after: Mapping[int, int], limit: int, wait_s: float
    ) -> dict[int, list[RawEntry]]:
        """Reads the next entries by partition; waits for the first if there are none."""
        positions = {
            partition_keys(self._collection, one).log: f"{position}-0"
            for one, position in after.items()
        }
        partitions = {partition_keys(self._collection, one).log.encode(): one for one in after}
        async with translate_redis_errors(NEEDED_BY), asyncio.timeout(wait_s + _REPLY_TIMEOUT_S):
            reply = await read_streams(
                self._client, positions, max(min(limit, _MAX_ENTRIES // len(after)), 1), wait_s
            )
        received: dict[int, list[RawEntry]] = {}
        for name, entries in reply:
            partition = partitions[name]
            received[partition] = [
                RawEntry(partition, int(number.partition(b"-")[0]), fields)
                for number, fields in entries
            ]
        return received

    async def _heads(self, partitions: Iterable[int], log_id: str) -> dict[int, PartitionHead]:
        """Reads the metadata of partitions. Raises: SnapshotMismatch: one is of another log."""
        numbers = list(partitions)
        metas = [partition_keys(self._collection, one).meta for one in numbers]
        async with translate_redis_errors(NEEDED_BY), asyncio.timeout(_REPLY_TIMEOUT_S):
            if cluster_of(self._client) is None:
                words = (*metas, *HEAD_FIELDS)
                replies = await self._client.eval(lua_scripts.HEADS, len(metas), *words)
            else:
                # The keys of a script must share a slot.
                async with self._client.pipeline(transaction=False) as pipe:
                    for meta in metas:
                        pipe.hmget(meta, HEAD_FIELDS)
                    replies = await pipe.execute()
        heads = {one: parse_head(reply) for one, reply in zip(numbers, replies, strict=True)}
        for partition, head in heads.items():
            if head.log_id != log_id:
                raise log_mismatch_error(self._collection, log_id, partition, head.log_id)
        return heads


def _key_reuse_error() -> InvalidRequest:
    return InvalidRequest(
        "the idempotency key was used for another request within 24 hours; use a new one",
        field="idempotency_key",
    )
