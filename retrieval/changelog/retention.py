"""Retention of changes: a log and its archive drop those that every stored snapshot contains."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from nearline.errors import NearlineError
from nearline.store.snapshot import PARTITIONS, Store
from nearline.v1 import snapshot_pb2
from retrieval.changelog.archive import Archive
from retrieval.changelog.change_log import ChangeLog, PartitionEnd
from retrieval.changelog.holds import held_watermarks
from retrieval.changelog.start_position import watermark_of
from retrieval.protocols.watermark import Watermark

# Beyond any position: all changes of a log that a later log continues.
_ALL = (1 << 62,) * PARTITIONS


def log_lineage(store: Store, collection: str) -> list[str]:
    """Returns the logs that the current log continues, oldest first, followed by its own id."""
    logs: list[str] = []
    follows = ""
    for record in store.log_records(collection):
        if not logs or record.log_id == follows:
            logs.append(record.log_id)
            follows = record.follows
    return logs[::-1]


def followable_logs(store: Store, collection: str) -> Sequence[str]:
    """Returns the lineage of the current log; empty if no change can have been made yet."""
    record = store.log_in_force(collection)
    if record is None or not store.log_ready(collection, record.number):
        return ()
    return log_lineage(store, collection)


def contained_watermark(
    manifest: snapshot_pb2.Manifest, log_id: str, logs: Sequence[str]
) -> Watermark:
    """Returns which changes of a log a snapshot contains.

    Args:
        manifest: Manifest of the snapshot; without a log, or with an unknown one, it contains none.
        log_id: The log, one of `logs`.
        logs: The result of `log_lineage`.
    """
    return _in_log(watermark_of(manifest), log_id, logs)


def _in_log(known: Watermark, log_id: str, logs: Sequence[str]) -> Watermark:
    """Returns a position as one of a log, which may continue the log of the position, or be one
    that this log continues.
    """
    if known.log_id == log_id:
        return known
    if known.log_id in logs and logs.index(known.log_id) > logs.index(log_id):
        return Watermark(log_id, _ALL)
    return Watermark(log_id)


def common_watermark(store: Store, collection: str, log_id: str) -> Watermark:
    """Returns which changes of a log every snapshot in the store contains, and no build needs.

    A snapshot with an unreadable manifest counts as containing none.
    """
    logs = log_lineage(store, collection)
    common: Watermark | None = None
    for snapshot_id in store.snapshot_ids(collection):
        try:
            own = contained_watermark(store.manifest(collection, snapshot_id), log_id, logs)
        except NearlineError:
            return Watermark(log_id)
        common = own if common is None else common.limited(own)
    if common is None:
        return Watermark(log_id)
    for held in held_watermarks(store, collection):
        common = common.limited(_in_log(held, log_id, logs))
    return common


async def trim_log(store: Store, log: ChangeLog) -> int:
    """Removes the changes from a log that both the archive and every stored snapshot contain.

    Returns: The number of changes removed.
    Raises: NotReady: the log is unavailable. SnapshotMismatch: the store names another log, or the
        log lacks archived changes.
    """
    log_id = (await log.state()).head.log_id

    def removable() -> tuple[Watermark, Mapping[int, PartitionEnd]]:
        archive = Archive(store, log.collection, log_id)
        common = common_watermark(store, log.collection, log_id).limited(archive.end())
        return common, archive.ends()

    return await log.trim(*await asyncio.to_thread(removable))


def drop_archived_segments(store: Store, collection: str) -> int:
    """Removes archived segments that every snapshot contains, so that deleted texts disappear.

    Returns: The number of segments removed.
    """
    return sum(
        Archive(store, collection, log_id).drop(common_watermark(store, collection, log_id))
        for log_id in log_lineage(store, collection)
    )
