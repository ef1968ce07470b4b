"""The protocol that provides the shards of a snapshot, in this process or on shard servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from retrieval.live.progress import ShardProgress
from retrieval.protocols.shard import Shard
from retrieval.protocols.snapshot import SnapshotRef


class ShardProvider(Protocol):
    """Prepares snapshots for serving, and releases them.

    The router prepares the snapshot that a new alias record names while it serves the old one, then
    switches to the new one, and releases the old one when its last request is answered.
    """

    async def prepare(self, snapshot: SnapshotRef) -> Sequence[Shard]:
        """Returns the shards of a snapshot, by number, once each can answer from it.

        In this process, the shards are loaded, warmed and tested. Shard servers are instructed to
        load them, one replica group after another; the call returns when every shard has a ready
        replica, while the others go on loading. If the snapshot is prepared already, the same
        shards are returned; the router calls this method once a second while the alias names a
        different snapshot that cannot be prepared.

        The call is cancelled if the alias changes in the meantime; `release` follows even then.

        Raises: NotReady: not in time. SnapshotCorrupt, SnapshotMismatch: the snapshot must not go
            live. Overloaded: not enough free memory; the error names the bytes free and needed.
        """
        ...

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        """Returns the last known progress of live changes in each ready replica, by shard number.

        Empty if no change log is followed.
        """
        ...

    async def release(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot that no request uses any more, whether or not it was prepared."""
        ...

    async def close(self) -> None:
        """Releases everything."""
        ...
