"""The snapshots that a shard server holds: loaded when asked for or named, unloaded by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from nearline.errors import NotFound, SettingsError, SnapshotGone
from nearline.snapshot import Store
from retrieval.live.progress import ShardProgress
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.shards.loader import LoadedShard
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.snapshots.follower import AliasFollower, LifecycleHooks
from retrieval.snapshots.loaded import LoadedSnapshot, LoadedSnapshots

ShardsByNumber = Mapping[int, LoadedShard]


class ShardHost:
    """Shards of this process by collection, snapshot and number.

    It follows the aliases by itself, so that it is ready early, needs no router to let go, and
    comes back right after a restart.

    Args:
        store: Where the aliases are read.
        shards: What loads and searches; the caller closes it.
        collections: Names; none: every collection of the store.
        poll_s: Seconds between two looks at the aliases.
        drain_s: Seconds that a snapshot stays after its last request, once no alias names it.
    """

    def __init__(
        self,
        store: Store,
        shards: LocalShardProvider,
        collections: Sequence[str] = (),
        *,
        poll_s: float = 1.0,
        drain_s: float = 10.0,
    ) -> None:
        self._store = store
        self._shards = shards
        self._loaded: LoadedSnapshots[ShardsByNumber] = LoadedSnapshots(drain_s, time.monotonic)
        self._follower = AliasFollower(
            store,
            collections,
            self._loaded,
            LifecycleHooks(load=self._load, unload=shards.release),
            poll_s=poll_s,
        )

    def __iter__(self) -> Iterator[LoadedShard]:
        return (one for held in self._loaded.all for one in held.value.values())

    async def start(self) -> None:
        """Loads what the aliases name, then follows them.

        Raises: as `AliasFollower.start`. SettingsError: no collection has any of the shards.
        """
        await self._follower.start()
        if not any(self):
            raise SettingsError(
                f"no collection of {self._store.url} has a shard of those to hold; correct --shard"
            )

    def held(
        self, collection: str, snapshot_id: str, number: int
    ) -> LoadedSnapshot[ShardsByNumber]:
        """Returns what holds a shard for the length of a `with` block.

        Raises: NotFound: this process holds no such collection or shard. SnapshotGone: it holds
            another snapshot of it.
        """
        held = self._loaded.get(collection, snapshot_id)
        if held is not None and number in held.value:
            return held
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
            + (", ".join(f"{one.number} of {one.collection!r}" for one in self) or "none")
        )

    def progress(self, loaded: LoadedShard) -> ShardProgress | None:
        """Returns how far live changes are beside a shard; None: no change log is followed."""
        told = self._shards.progress(loaded.collection, loaded.snapshot_id).get(loaded.number)
        return told[0] if told else None

    async def load(self, collection: str, snapshot_id: str) -> None:
        """Loads a snapshot, or waits for the load that runs; asking again keeps it loaded.

        Raises: NotFound: there is no such snapshot. As `LocalShardProvider.load`.
        """
        await self._follower.load(collection, snapshot_id)

    async def unload(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot as soon as nobody needs it.

        Other routers may be behind the one that asks, so this is no order: as ever, a snapshot
        goes once no alias names it and nobody has asked for it for `drain_s`.
        """
        await self._follower.poll()

    async def close(self) -> None:
        """Stops following the aliases."""
        await self._follower.close()

    async def _load(self, snapshot: SnapshotRef) -> ShardsByNumber:
        return {one.number: one for one in await self._shards.load(snapshot)}
