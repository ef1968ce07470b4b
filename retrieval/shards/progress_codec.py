"""Converts between the progress of live changes in a shard and its message."""

from __future__ import annotations

from datetime import UTC

from nearline import wire
from nearline.v1 import shard_pb2
from retrieval.live.progress import ShardProgress
from retrieval.protocols.shard import AppliedState
from retrieval.protocols.watermark import decode_watermark


def fill_progress(message: shard_pb2.LoadedShard, progress: ShardProgress) -> None:
    """Adds the progress of live changes to the status of a shard."""
    message.watermark = progress.applied.watermark.encode()
    message.stale = progress.applied.stale
    delta = message.delta
    delta.rows = progress.rows
    delta.dead_rows = progress.dead_rows
    delta.hidden_rows = progress.hidden_rows
    delta.changes = progress.changes
    delta.behind = progress.behind
    if progress.away_s is not None:
        wire.set_duration(delta.away, progress.away_s)
    if progress.oldest_change is not None:
        delta.oldest_change_time.FromDatetime(progress.oldest_change)


def progress_from_proto(message: shard_pb2.LoadedShard) -> ShardProgress | None:
    """Returns the progress in the status of a shard; None if it follows no change log.

    Raises: InvalidRequest: not a valid watermark.
    """
    watermark = decode_watermark(message.watermark, "watermark")
    if watermark is None:
        return None
    delta = message.delta
    return ShardProgress(
        applied=AppliedState(watermark, message.stale),
        rows=delta.rows,
        dead_rows=delta.dead_rows,
        hidden_rows=delta.hidden_rows,
        changes=delta.changes,
        behind=delta.behind,
        away_s=delta.away.ToTimedelta().total_seconds() if delta.HasField("away") else None,
        oldest_change=delta.oldest_change_time.ToDatetime(UTC)
        if delta.HasField("oldest_change_time")
        else None,
    )
