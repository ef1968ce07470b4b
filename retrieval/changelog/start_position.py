"""From where in a change log a snapshot is to be followed, and whether it still can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearline.errors import SnapshotMismatch
from nearline.snapshot import PARTITIONS
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import LogState
from retrieval.protocols.watermark import Watermark, decode_watermark


def watermark_of(manifest: snapshot_pb2.Manifest) -> Watermark:
    """Returns how far a snapshot has the changes of its log; of log "" where it has none."""
    return decode_watermark(manifest.watermark, "watermark of the manifest") or Watermark(
        manifest.change_log_id
    )


def start_position(
    manifest: snapshot_pb2.Manifest,
    logs: Sequence[str],
    state: LogState,
    partitions: Iterable[int] = range(PARTITIONS),
) -> Watermark:
    """Returns the position after which a snapshot is to be followed.

    Args:
        manifest: Of the snapshot.
        logs: Ids of the logs that the one in force goes on from, itself last.
        state: How far it goes.
        partitions: Those that matter.
    Raises: SnapshotMismatch: the snapshot belongs to a log that this one does not go on from, the
        log has forgotten changes that it lacks, or lacks changes that it has; names the remedy.
    """
    log_id = state.head.log_id
    known = watermark_of(manifest)
    if not known.log_id or known.log_id == log_id:
        start = Watermark(log_id, known.positions)
    elif known.log_id in logs:
        # All snapshots are taken to have what was in the logs before.
        start = Watermark(log_id)
    else:
        raise SnapshotMismatch(
            f"snapshot {manifest.snapshot_id} belongs to change log {known.log_id}, {log_id} is in "
            f"force and does not go on from that; promote a snapshot of {log_id}, or bring back "
            "the Redis that holds the other log"
        )
    for one in partitions:
        at, trimmed, head = (w.positions[one] for w in (start, state.trimmed, state.head))
        if at < trimmed:
            raise SnapshotMismatch(
                f"snapshot {manifest.snapshot_id} has the changes of partition {one} up to {at}, "
                f"change log {log_id} keeps only those after {trimmed}; build a snapshot from the "
                "newest one and the archived changes, and promote that"
            )
        if at > head:
            raise SnapshotMismatch(
                f"snapshot {manifest.snapshot_id} has the changes of partition {one} up to {at}, "
                f"change log {log_id} ends at {head}: it has lost changes; bring back the Redis "
                "that has them"
            )
    return start
