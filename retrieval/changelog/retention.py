"""Which changes a log and its archive may forget: those that every snapshot in the store has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nearline.errors import NearlineError
from nearline.snapshot import PARTITIONS, Store
from nearline.v1 import snapshot_pb2
from retrieval.changelog.archive import Archive
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.start_position import watermark_of
from retrieval.protocols.watermark import Watermark

# Beyond any position: all changes of a log that a later one follows.
_ALL = (1 << 62,) * PARTITIONS


def log_lineage(store: Store, collection: str) -> list[str]:
    """Lists the logs that the one in force goes on from, oldest first, itself last."""
    logs: list[str] = []
    follows = ""
    for record in store.log_records(collection):
        if not logs or record.log_id == follows:
            logs.append(record.log_id)
            follows = record.follows
    return logs[::-1]


def followable_logs(store: Store, collection: str) -> Sequence[str]:
    """Returns the log in force last, before it those that it goes on from; none where no change can
    have been made yet.
    """
    record = store.log_in_force(collection)
    if record is None or not store.log_ready(collection, record.number):
        return ()
    return log_lineage(store, collection)


def contained_watermark(
    manifest: snapshot_pb2.Manifest, log_id: str, logs: Sequence[str]
) -> Watermark:
    """Returns which changes of a log a snapshot has.

    Args:
        manifest: Of the snapshot; one of no log, or of an unknown one, has none.
        log_id: The log, one of `logs`.
        logs: What `log_lineage` gives.
    """
    known = watermark_of(manifest)
    if known.log_id == log_id:
        return known
    if known.log_id in logs and logs.index(known.log_id) > logs.index(log_id):
        return Watermark(log_id, _ALL)
    return Watermark(log_id)


def common_watermark(store: Store, collection: str, log_id: str) -> Watermark:
    """Returns which changes of a log every snapshot in the store has: per partition the least.

    A snapshot whose manifest cannot be read has none, as far as anybody can tell.
    """
    logs = log_lineage(store, collection)
    least: Watermark | None = None
    for snapshot_id in store.snapshot_ids(collection):
        try:
            has = contained_watermark(store.manifest(collection, snapshot_id), log_id, logs)
        except NearlineError:
            return Watermark(log_id)
        least = has if least is None else least.limited(has)
    return least or Watermark(log_id)


async def trim_log(store: Store, log: ChangeLog) -> int:
    """Makes a log forget what every snapshot in the store has and the archive has, too.

    Returns: How many changes were forgotten.
    Raises: NotReady: the log is away. SnapshotMismatch: it is not the one that the store names.
    """
    log_id = (await log.state()).head.log_id

    def least() -> Watermark:
        kept = common_watermark(store, log.collection, log_id)
        archived = Archive(store, log.collection, log_id).end()
        return kept.limited(archived)

    return await log.trim(await asyncio.to_thread(least))


def drop_archived_segments(store: Store, collection: str) -> int:
    """Removes archived segments that every snapshot has; so deleted texts leave for good.

    Returns: How many were removed.
    """
    return sum(
        Archive(store, collection, log_id).drop(common_watermark(store, collection, log_id))
        for log_id in log_lineage(store, collection)
    )
