"""How a change log comes to be: the record in the store first, then its partitions in Redis.

A mark in the store says that all partitions exist. Until then they may be made, again and by
several services at once; from then on, one that is not there is lost, and never made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

from nearline.errors import AlreadyExists, NotReady, SnapshotMismatch, StoreError
from nearline.snapshot import PARTITIONS, Store
from nearline.v1.change_pb2 import LogRecord
from retrieval.changelog.keys import partition_keys
from retrieval.changelog.lua_scripts import CREATE
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import NEEDED_BY, RETRY_AFTER_S, Durability


def start_new_log(store: Store, collection: str, who: str, why: str) -> LogRecord:
    """Names a new log in the place of one that is lost.

    What the old one still holds is forgotten when the new one is opened: all snapshots are taken to
    have it. Services must be started again, or meet a SnapshotMismatch.

    Returns: The record in force; somebody else's where he was faster.
    Raises: StoreError.
    """
    before = store.log_in_force(collection)
    record = LogRecord(
        number=before.number + 1 if before else 1,
        log_id=secrets.token_hex(16),
        follows=before.log_id if before else "",
        who=who,
        why=why,
    )
    record.create_time.GetCurrentTime()
    with contextlib.suppress(AlreadyExists):
        store.create_log_record(collection, record)
        return record
    return store.log_in_force(collection) or record


async def open_log(
    store: Store, collection: str, client: Redis, durability: Durability, who: str
) -> LogRecord:
    """Returns the record in force; makes the log that it names, and the record where there is none.

    The partitions of a log that was made before are not looked at.

    Raises: NotReady: Redis or the store does not answer, or changes would not last there.
        SnapshotMismatch: Redis holds another log of that collection.
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
    """Returns the error for a partition that is not the one of the log."""
    held = f"holds change log {found}" if found else "holds none: it was emptied, or is another one"
    return SnapshotMismatch(
        f"collection {collection!r} has change log {log_id}, but Redis {held} (partition "
        f"{partition}); name the Redis that holds it with --redis, restore its data, or, where it "
        "is lost, start a new log"
    )


def foreign_log_id(error: Exception) -> str | None:
    """Returns the id of the log that a script found in the place of ours; None: another error."""
    word, _, found = str(error).partition(" ")
    if word != "LOGID":
        return None
    return "" if found == "none" else found


def _read_log_record(store: Store, collection: str, who: str) -> tuple[LogRecord, list[str], bool]:
    """Returns the record in force, the ids of all before it, and whether its log was made."""
    records = list(store.log_records(collection))
    if not records:
        records = [start_new_log(store, collection, who, "the first change log")]
    record, *earlier = records
    return record, [one.log_id for one in earlier], store.log_ready(collection, record.number)


async def _make_partitions(
    collection: str, client: Redis, durability: Durability, log_id: str, earlier: list[str]
) -> None:
    async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
        for partition in range(PARTITIONS):
            keys = partition_keys(collection, partition)
            pipe.eval(CREATE, 3, keys.meta, keys.log, keys.versions, log_id, *earlier)
        pipe.execute_command(*durability.command)
        *made, kept = await pipe.execute(raise_on_error=False)
        for partition, reply in enumerate(made):
            if isinstance(reply, Exception):
                found = foreign_log_id(reply)
                if found is None:
                    raise reply
                raise log_mismatch_error(collection, log_id, partition, found)
    durability.judge(kept)
