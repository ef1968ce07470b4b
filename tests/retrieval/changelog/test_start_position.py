"""Where a snapshot continues in a change log, and when it cannot."""

from __future__ import annotations

import pytest

from nearline.errors import SnapshotMismatch
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import LogState
from retrieval.changelog.start_position import start_position
from retrieval.protocols.watermark import Watermark


def mark(position: int, log_id: str = "new") -> Watermark:
    return Watermark(log_id, (position, *[0] * 63))


STATE = LogState(head=mark(9), trimmed=mark(4))


@pytest.mark.parametrize("position", [4, 6, 9])
def test_a_snapshot_of_the_log_continues_after_its_watermark(position: int) -> None:
    manifest = snapshot_pb2.Manifest(watermark=mark(position).encode())
    assert start_position(manifest, ["new"], STATE) == mark(position)


@pytest.mark.parametrize(("position", "reason"), [(3, "only has those after 4"), (10, "ends at 9")])
def test_a_snapshot_whose_changes_were_trimmed_or_lost_is_refused(
    position: int, reason: str
) -> None:
    manifest = snapshot_pb2.Manifest(watermark=mark(position).encode())
    with pytest.raises(SnapshotMismatch, match=reason):
        start_position(manifest, ["new"], STATE)
    # Only the partitions of the shard count.
    assert start_position(manifest, ["new"], STATE, [1, 2]) == mark(position)


@pytest.mark.parametrize(
    "manifest",
    [
        snapshot_pb2.Manifest(),
        snapshot_pb2.Manifest(change_log_id="old"),
        snapshot_pb2.Manifest(watermark=mark(7, "old").encode()),
    ],
    ids=["no log", "an earlier log", "a position in an earlier log"],
)
def test_a_snapshot_without_changes_of_the_log_begins_at_its_start(
    manifest: snapshot_pb2.Manifest,
) -> None:
    whole = LogState(head=mark(9), trimmed=mark(0))
    assert start_position(manifest, ["old", "new"], whole) == mark(0)


def test_a_snapshot_of_a_log_that_is_not_continued_is_refused() -> None:
    manifest = snapshot_pb2.Manifest(watermark=mark(7, "old").encode())
    with pytest.raises(SnapshotMismatch, match="belongs to change log old, but the current log"):
        start_position(manifest, ["other", "new"], STATE)
