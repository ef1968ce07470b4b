"""The seam between the life of a snapshot and what holds its shards: this process, or servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from retrieval.live.progress import ShardProgress
from retrieval.protocols.shard import Shard
from retrieval.protocols.snapshot import SnapshotRef


class ShardProvider(Protocol):
    """Gets snapshots ready to serve, and releases them.

    The router prepares the snapshot that a new alias record names while it serves the old one,
    then flips, and releases the old one when its last request is answered.
    """

    async def prepare(self, snapshot: SnapshotRef) -> Sequence[Shard]:
        """Returns the shards of a snapshot, by number, once each can answer from it.

        In this process that loads, warms and tries them. On servers it asks for the load, replica
        group by replica group, and returns when every shard has a ready replica; the others go on
        loading. Preparing what is prepared already gives its shards again; the router does so once
        a second while the alias names another snapshot that cannot be got ready.

        Cancelled where the alias moves on in the meantime; `release` follows then, too.

        Raises: NotReady: not in time. SnapshotCorrupt, SnapshotMismatch: it must not go live.
            Overloaded: not enough free memory; names what is free and what is needed.
        """
        ...

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        """Tells by shard number how far live changes are in each ready replica, as last heard.

        Empty where no change log is followed.
        """
        ...

    async def release(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot that no request uses any more, whatever came of preparing it."""
        ...

    async def close(self) -> None:
        """Releases everything."""
        ...
