"""Creation of a change log: first the record in the store, then the partitions in Redis.

A mark in the store says that all partitions exist. Until it is set, several services may create
partitions, concurrently and repeatedly. Afterwards, a missing partition is lost and not recreated.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

from nearline.errors import AlreadyExists, NotFound, NotReady, SnapshotMismatch, StoreError
from nearline.internal.v1.change_pb2 import LogRecord
from nearline.store.snapshot import PARTITIONS, Store
from retrieval.changelog.keys import partition_keys
from retrieval.changelog.lua_scripts import CREATE
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import NEEDED_BY, RETRY_AFTER_S, Durability


def start_new_log(store: Store, collection: str, who: str, why: str) -> LogRecord:
    """Names a new log that replaces a lost one.

    Opening the new log discards what is left of the old log: all snapshots count as containing its
    changes. Services must be restarted; otherwise they fail with SnapshotMismatch.

    Returns: The current record; if another process was faster, its record.
    Raises: StoreError.
    """
    before = store.log_in_force(collection)
    record = _new_record(before, who, why)
    with contextlib.suppress(AlreadyExists):
        store.create_log_record(collection, record)
        return record
    return store.log_in_force(collection) or record


async def open_log(
    store: Store, collection: str, client: Redis, durability: Durability, who: str
) -> LogRecord:
    """Returns the current record; creates the record and the log if they do not exist.

    Does not check the partitions of an existing log.

    Raises: NotReady: Redis or the store does not answer, or changes would not be durable in Redis.
        SnapshotMismatch: Redis has another log of the collection. NotFound: It was dropped.
    """
    try:
        record, earlier, ready = await asyncio.to_thread(_read_log_record, store, collection, who)
        if not ready:
            await durability.check()
            await _make_partitions(collection, client, durability, record.log_id, earlier)
            await asyncio.to_thread(store.mark_log_ready, collection, record.number)
    except StoreError as error:
        raise NotReady(error.message, retry_after_s=RETRY_AFTER_S) from error
    return record


def log_mismatch_error(
    collection: str, log_id: str, partition: int, found: str
) -> SnapshotMismatch:
    """Returns the error for a partition that does not belong to the log."""
    held = f"has change log {found}" if found else "has none: it was emptied, or is another one"
    return SnapshotMismatch(
        f"collection {collection!r} has change log {log_id}, but Redis {held} (partition "
        f"{partition}); pass the right Redis with --redis, restore its data, or, if that is lost, "
        "start a new log: nearline changes reset"
    )


def foreign_log_id(error: Exception) -> str | None:
    """Returns the id of the log that a script found instead of ours; None for other errors."""
    word, _, found = str(error).partition(" ")
    if word != "LOGID":
        return None
    return "" if found == "none" else found


def _new_record(before: LogRecord | None, who: str, why: str) -> LogRecord:
    record = LogRecord(
        number=before.number + 1 if before else 1,
        log_id=secrets.token_hex(16),
        follows=before.log_id if before else "",
        who=who,
        why=why,
    )
    record.create_time.GetCurrentTime()
    return record


def _read_log_record(store: Store, collection: str, who: str) -> tuple[LogRecord, list[str], bool]:
    """Returns the current record, the ids of all earlier logs, and whether its log exists."""
    records = list(store.log_records(collection))
    if not records:
        newest = store.newest_alias_record(collection)
        if newest is not None and newest.dropped:
            raise NotFound(f"collection {collection!r} was dropped", field="collection")
        # Two services that find none both create record 1. With `start_new_log`, the slower one
        # could read the record of the faster one, and replace a log that already takes changes.
        with contextlib.suppress(AlreadyExists):
            store.create_log_record(collection, _new_record(None, who, "the first change log"))
        records = list(store.log_records(collection))
    record, *earlier = records
    return record, [one.log_id for one in earlier], store.log_ready(collection, record.number)


async def _make_partitions(
    collection: str, client: Redis, durability: Durability, log_id: str, earlier: list[str]
) -> None:
    async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
        for partition in range(PARTITIONS):
            keys = partition_keys(collection, partition)
            pipe.eval(CREATE, 3, keys.meta, keys.log, keys.versions, log_id, *earlier)
        made, kept = await durability.execute(pipe)
        for partition, reply in enumerate(made):
            if isinstance(reply, Exception):
                found = foreign_log_id(reply)
                if found is None:
                    raise reply
                raise log_mismatch_error(collection, log_id, partition, found)
    durability.check_reply(kept)
