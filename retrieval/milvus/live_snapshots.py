"""Live changes of all snapshots in Milvus that this process serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from nearline.errors import SnapshotMismatch
from nearline.store.snapshot import Store
from retrieval.changelog.retention import followable_logs
from retrieval.live.live_changes import LiveChanges
from retrieval.live.log_follower import LogFollower
from retrieval.live.progress import ShardProgress
from retrieval.milvus.change_merge import ChangeMerger
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState
from retrieval.milvus.delta import follow_snapshot
from retrieval.milvus.lease import Lease, RedisLease, lease_name
from retrieval.milvus.live_collection import LiveCollection
from retrieval.milvus.shard import MilvusShard
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.redis_client.connection import Redis


@dataclass(frozen=True, slots=True, eq=False)
class FollowedSnapshot:
    """A snapshot in Milvus and the follower of its log; `follower` is None if it has no log."""

    collection: LiveCollection
    follower: LogFollower | None


class LiveSnapshots:
    """Applies live changes to snapshots in Milvus.

    Args:
        store: Store that names the change logs.
        client: Client of the Milvus server.
        live: Follows the logs; closed by `close`.
        redis: Redis that holds the leases; the caller closes it. If None, no log is followed.
    """

    def __init__(
        self, store: Store, client: MilvusClient, live: LiveChanges, redis: Redis | None
    ) -> None:
        self._store = store
        self._client = client
        self._live = live
        self._redis = redis

    async def begin(
        self,
        snapshot: SnapshotRef,
        name: str,
        state: CollectionState,
        shard: MilvusShard,
        merger: ChangeMerger,
        remedy: str,
    ) -> FollowedSnapshot:
        """Follows the log for a snapshot; returns once all of its present changes are applied.

        Args:
            snapshot: The snapshot.
            name: Name of the Milvus collection.
            state: State of the Milvus collection.
            shard: Shard that searches the collection.
            merger: Merges the changes of the snapshot.
            remedy: Command that exports the snapshot, for errors.
        Raises: SnapshotMismatch: The collection has changes of a log that cannot be followed.
        """
        collection = LiveCollection(
            self._client,
            name,
            shard.reader.context,
            merger,
            None if self._redis is None else partial(self._lease, snapshot.collection, name),
            logs=partial(followable_logs, self._store, snapshot.collection),
            remedy=remedy,
        )
        follower = await self._live.begin(snapshot, [follow_snapshot(collection, shard.attach)])
        if follower is None and state.log_id:
            raise SnapshotMismatch(
                f"Milvus collection {name} has live changes of change log {state.log_id}, but the "
                f"store names no log for {snapshot.collection!r}; {remedy} --again"
            )
        followed = FollowedSnapshot(collection, follower)
        if follower is not None:
            try:
                await follower.ready()
            except BaseException:
                await self.end(followed)
                raise
        return followed

    async def end(self, followed: FollowedSnapshot) -> None:
        """Stops following the log of a snapshot; no search of it may still be running."""
        if followed.follower is not None:
            await self._live.end(followed.follower)
        await followed.collection.close()

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, ShardProgress]:
        """Returns the progress of live changes; see `LiveChanges.progress`."""
        return self._live.progress(collection, snapshot_id)

    async def close(self) -> None:
        """Stops following logs; call `end` for every snapshot first."""
        await self._live.close()

    def _lease(self, collection: str, name: str, started_us: int) -> Lease:
        assert self._redis is not None
        return RedisLease(self._redis, lease_name(collection, name, started_us))
