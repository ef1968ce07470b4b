"""The snapshots of a shard server: loaded on request or by alias, unloaded automatically."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from nearline.errors import NotFound, SettingsError, SnapshotGone
from nearline.store.snapshot import Store
from retrieval.live.progress import ShardProgress
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.shards.loader import LoadedShard
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.snapshots.follower import AliasFollower
from retrieval.snapshots.loaded_snapshots import LoadedSnapshot, LoadedSnapshots

ShardsByNumber = Mapping[int, LoadedShard]


class ShardHost:
    """Shards of this process by collection, snapshot and number.

    The host follows the aliases on its own, so it is ready early, unloads snapshots without a
    router, and recovers after a restart.

    Args:
        store: Store with the aliases.
        shards: Loads and searches the shards; closed by the caller.
        collections: Names; empty means every collection of the store.
        poll_s: Seconds between two reads of the aliases.
        drain_s: Seconds that a snapshot stays loaded after its last request, once no alias names
            it.
        allow_empty: Whether to start although nothing is published.
    """

    def __init__(
        self,
        store: Store,
        shards: LocalShardProvider,
        collections: Sequence[str] = (),
        *,
        poll_s: float = 1.0,
        drain_s: float = 10.0,
        allow_empty: bool = False,
    ) -> None:
        self._store = store
        self._shards = shards
        self._loaded: LoadedSnapshots[ShardsByNumber] = LoadedSnapshots(drain_s, time.monotonic)
        self._follower = AliasFollower(
            store,
            collections,
            self._loaded,
            load=self._load,
            unload=shards.release,
            poll_s=poll_s,
            allow_empty=allow_empty,
        )
        self._allow_empty = allow_empty

    def __iter__(self) -> Iterator[LoadedShard]:
        return (shard for snapshot in self._loaded.all for shard in snapshot.value.values())

    async def start(self) -> None:
        """Loads the snapshots that the aliases name, then follows the aliases.

        Raises: SettingsError: no collection has any of the shards. As `AliasFollower.start`.
        """
        await self._follower.start()
        if not any(self) and not self._allow_empty:
            raise SettingsError(
                f"no collection of {self._store.url} has any of the shards to hold; correct --shard"
            )

    def shards(
        self, collection: str, snapshot_id: str, number: int
    ) -> LoadedSnapshot[ShardsByNumber]:
        """Returns the shards of a snapshot; a `with` block keeps them loaded.

        Raises: NotFound: this process does not hold the collection or shard `number` of it.
            SnapshotGone: it holds the shard of another snapshot.
        """
        loaded = self._loaded.get(collection, snapshot_id)
        if loaded is not None and number in loaded.value:
            return loaded
        others = [
            other.key.snapshot_id
            for other in self._loaded.of_collection(collection)
            if number in other.value
        ]
        if others:
            raise SnapshotGone(
                f"shard {number} of {collection!r} has snapshot {' and '.join(others)} loaded, "
                f"not {snapshot_id}; retry the whole request"
            )
        raise NotFound(
            f"this process does not hold shard {number} of collection {collection!r}; it holds "
            + (", ".join(f"{one.number} of {one.snapshot.collection!r}" for one in self) or "none")
        )

    def progress(self, loaded: LoadedShard) -> ShardProgress | None:
        """Returns the progress of live changes in a shard; None if no change log is followed."""
        key = loaded.snapshot.collection, loaded.snapshot.snapshot_id
        progress = self._shards.progress(*key).get(loaded.number)
        return progress[0] if progress else None

    async def load(self, collection: str, snapshot_id: str) -> None:
        """Loads a snapshot, or waits for the running load; repeated calls keep it loaded.

        Raises: NotFound: the snapshot does not exist. As `LocalShardProvider.load`.
        """
        await self._follower.load(collection, snapshot_id)

    async def unload(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot as soon as it is no longer needed.

        Other routers may be behind the caller, so this does not release it at once: as always, a
        snapshot is unloaded when no alias names it and no request has used it for `drain_s`.
        """
        await self._follower.poll()

    async def close(self) -> None:
        """Stops following the aliases."""
        await self._follower.close()

    async def _load(self, snapshot: SnapshotRef) -> ShardsByNumber:
        return {one.number: one for one in await self._shards.load(snapshot)}
