"""The position of a change log from which a snapshot continues, and whether it still can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearline.errors import SnapshotMismatch
from nearline.store.snapshot import PARTITIONS
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import LogState
from retrieval.protocols.watermark import Watermark, decode_watermark


def watermark_of(manifest: snapshot_pb2.Manifest) -> Watermark:
    """Returns the changes that a snapshot contains; with log id "" if it has no log."""
    return decode_watermark(manifest.watermark, "watermark of the manifest") or Watermark(
        manifest.change_log_id
    )


def start_position(
    manifest: snapshot_pb2.Manifest,
    logs: Sequence[str],
    state: LogState,
    partitions: Iterable[int] = range(PARTITIONS),
) -> Watermark:
    """Returns the position after which changes must be applied to a snapshot.

    Args:
        manifest: Manifest of the snapshot.
        logs: Ids of the logs that the current log continues, followed by its own.
        state: State of the current log.
        partitions: Partitions to check.
    Raises: SnapshotMismatch: the current log does not continue the log of the snapshot, has trimmed
        changes that the snapshot needs, or has lost changes that it contains; names the remedy.
    """
    log_id = state.head.log_id
    known = watermark_of(manifest)
    if not known.log_id or known.log_id == log_id:
        start = Watermark(log_id, known.positions)
    elif known.log_id in logs:
        # All snapshots count as containing the changes of earlier logs.
        start = Watermark(log_id)
    else:
        raise SnapshotMismatch(
            f"snapshot {manifest.snapshot_id} belongs to change log {known.log_id}, but the "
            f"current log is {log_id}, which does not continue it; promote a snapshot of {log_id}, "
            f"or restore the Redis that has {known.log_id}"
        )
    for one in partitions:
        at, trimmed, head = (w.positions[one] for w in (start, state.trimmed, state.head))
        if at < trimmed:
            raise SnapshotMismatch(
                f"snapshot {manifest.snapshot_id} has the changes of partition {one} up to {at}, "
                f"but change log {log_id} only has those after {trimmed}; build a snapshot from "
                "the newest one and the archived changes, and promote it"
            )
        if at > head:
            raise SnapshotMismatch(
                f"snapshot {manifest.snapshot_id} has the changes of partition {one} up to {at}, "
                f"but change log {log_id} ends at {head}: it has lost changes; restore the Redis "
                "that has them"
            )
    return start
