"""Live changes of all snapshots in Milvus that this process holds: followed, told of, let go of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from nearline.errors import SnapshotMismatch
from nearline.snapshot import Store
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
    """A snapshot in Milvus whose log is followed; following: None: it has no log."""

    collection: LiveCollection
    following: LogFollower | None


class LiveSnapshots:
    """Has live changes written into snapshots that lie in Milvus.

    Args:
        store: Where the names of the logs stand.
        client: The Milvus.
        live: Follows the logs; closed with this.
        redis: Where routers agree on who writes; stays its owner's. None: no log is followed here.
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
        """Follows the log for a snapshot; returns when all is applied that was in it.

        Args:
            snapshot: The snapshot.
            name: The collection of Milvus.
            state: Of that.
            shard: Searches it.
            merger: Puts its changes together.
            remedy: How it is written again, for errors.
        Raises: SnapshotMismatch: its changes are of no log that can be followed.
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
        following = await self._live.begin(snapshot, [follow_snapshot(collection, shard.attach)])
        if following is None and state.log_id:
            raise SnapshotMismatch(
                f"Milvus collection {name} has live changes of change log {state.log_id}, and the "
                f"store names no log for {snapshot.collection!r}; {remedy} --again"
            )
        begun = FollowedSnapshot(collection, following)
        if following is not None:
            try:
                await following.ready()
            except BaseException:
                await self.end(begun)
                raise
        return begun

    async def end(self, begun: FollowedSnapshot) -> None:
        """Stops following for a snapshot; no search of it may be running any more."""
        if begun.following is not None:
            await self._live.end(begun.following)
        await begun.collection.close()

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, ShardProgress]:
        """Returns how far live changes are; see `LiveChanges.progress`."""
        return self._live.progress(collection, snapshot_id)

    async def close(self) -> None:
        """Stops what follows; all snapshots are to be ended before."""
        await self._live.close()

    def _lease(self, collection: str, name: str, started_us: int) -> Lease:
        assert self._redis is not None
        return RedisLease(self._redis, lease_name(collection, name, started_us))
