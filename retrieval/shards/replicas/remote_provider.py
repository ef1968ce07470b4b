"""Provides shards on shard servers; imports no index engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

from nearline.errors import NotReady, SettingsError
from retrieval.live.progress import ShardProgress
from retrieval.protocols import metrics
from retrieval.protocols.shard import Shard
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.shards.client import ShardClient, ShardKey
from retrieval.shards.replicas.replica import Replica
from retrieval.shards.replicas.replicated_shard import ReplicatedShard
from retrieval.shards.replicas.rolling_loader import SnapshotLoader
from retrieval.shards.topology import replica_groups
from retrieval.snapshots.memory import MemoryLimit

_POLL_S = 0.1
_log = logging.getLogger(__name__)


class RemoteShardProvider:
    """Shards on servers; a `ShardProvider`.

    From the first snapshot on, the status of every server is requested twice a second, so servers
    that die, return or lose a snapshot are noticed automatically.

    Args:
        topology: Addresses by shard number; the position of an address in its list is its replica
            group.
        wait_s: Seconds without any running load after which a shard without a ready replica counts
            as missing.
    """

    def __init__(self, topology: Mapping[int, Sequence[str]], wait_s: float) -> None:
        self._topology = topology
        self._wait_s = wait_s
        self._replicas: dict[str, Replica[ShardClient]] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._shards: dict[tuple[str, int], ReplicatedShard] = {}
        self._loaders: dict[tuple[str, str], SnapshotLoader[ShardClient]] = {}
        self._prepared: set[str] = set()

    async def prepare(self, snapshot: SnapshotRef) -> Sequence[Shard]:
        """Returns the shards of a snapshot once each has a ready replica.

        The servers are instructed to load the snapshot, one replica group after another, repeatedly
        until another snapshot is prepared or this one is released; so a server that was away or
        replaced catches up. The first snapshot of a collection is returned with shards missing once
        `wait_s` has passed, unless all are missing: after a restart of the router, a partial
        answer is better than none. Later snapshots must be complete, because the previous one still
        answers in full.

        Raises: SettingsError: more shards than the topology has addresses for. NotReady: not in
            time. SnapshotCorrupt, SnapshotMismatch, Overloaded: the servers refuse the snapshot,
            which leaves a shard without a replica.
        """
        name, count = snapshot.collection, len(snapshot.manifest.shards)
        if count > len(self._topology):
            raise SettingsError(
                f"collection {name!r} has {count} shards, --shards names "
                f"{len(self._topology)}; add the others"
            )
        self._connect()
        loader = self._loaders.get((name, snapshot.snapshot_id))
        if loader is None:
            groups = replica_groups(self._topology, count)
            loader = SnapshotLoader(
                name,
                snapshot.snapshot_id,
                [
                    {self._replicas[at]: numbers for at, numbers in group.items()}
                    for group in groups
                ],
            )
            self._loaders[name, snapshot.snapshot_id] = loader
        shards = [self._shard(name, number) for number in range(count)]
        await self._wait(loader, shards, partly=name not in self._prepared)
        self._prepared.add(name)
        # Servers unload older snapshots on their own schedule: do not make them load those again.
        for key in [key for key in self._loaders if key[0] == name]:
            if self._loaders[key] is not loader:
                await self.release(*key)
        return shards

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        """Returns the progress of live changes; see `ShardProvider.progress`."""
        found: dict[int, list[ShardProgress]] = {}
        for number, addresses in self._topology.items():
            key = ShardKey(collection, snapshot_id, number)
            for replica in (self._replicas[one] for one in addresses if one in self._replicas):
                progress = replica.shards.get(key) if replica.holds(key) else None
                if progress is not None:
                    found.setdefault(number, []).append(progress)
        return found

    def server_memory(self) -> Mapping[str, Sequence[MemoryLimit]]:
        """Returns the memory of each server that can be reached, by address."""
        return {
            address: one.peer.memory
            for address, one in self._replicas.items()
            if not one.health.away
        }

    async def release(self, collection: str, snapshot_id: str) -> None:
        """Stops telling servers to load a snapshot.

        The servers unload it once no alias names it, since other routers may still use it.
        """
        loader = self._loaders.pop((collection, snapshot_id), None)
        if loader is not None:
            await loader.close()

    async def close(self) -> None:
        """Stops watching the servers and closes the channels."""
        for loader in self._loaders.values():
            await loader.close()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.peer.close()

    def _connect(self) -> None:
        if self._replicas:
            return
        for addresses in self._topology.values():
            for address in addresses:
                if address not in self._replicas:
                    self._replicas[address] = Replica(ShardClient(address))
        self._watchers = [
            asyncio.ensure_future(replica.watch()) for replica in self._replicas.values()
        ]

    def _shard(self, collection: str, number: int) -> ReplicatedShard:
        """Returns the only object for a shard; it keeps its measurements across snapshots."""
        shard = self._shards.get((collection, number))
        if shard is None:
            shard = self._shards[collection, number] = ReplicatedShard(
                [self._replicas[address] for address in self._topology[number]],
                collection,
                number,
                observe=metrics.batch_vectors.labels(collection, str(number)).observe,
            )
        return shard

    async def _wait(
        self,
        loader: SnapshotLoader[ShardClient],
        shards: Sequence[ReplicatedShard],
        *,
        partly: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_s
        while missing := _missing(shards, loader.snapshot_id):
            if fault := loader.fault(missing):
                raise fault
            if loader.is_loading():
                deadline = loop.time() + self._wait_s
            if loop.time() > deadline:
                error = loader.refusal(missing) or self._not_ready(loader, missing)
                if not partly or len(missing) == len(shards):
                    raise error
                _log.warning(
                    "shards missing",
                    extra={
                        "collection": loader.collection,
                        "snapshot_id": loader.snapshot_id,
                        "shards": missing,
                        "reason": error.message,
                    },
                )
                return
            await asyncio.sleep(_POLL_S)

    def _not_ready(self, loader: SnapshotLoader[ShardClient], missing: Collection[int]) -> NotReady:
        reasons = []
        for address in dict.fromkeys(one for number in missing for one in self._topology[number]):
            health = self._replicas[address].health
            reasons.append(
                f"{address}: {health.reason if health.away else 'it does not hold the shard'}"
            )
        numbers = ", ".join(map(str, missing))
        return NotReady(
            f"shard {numbers} of {loader.collection!r} ({loader.snapshot_id}) not ready after "
            f"{self._wait_s:g} s: {'; '.join(reasons)}; start the shard servers"
        )


def _missing(shards: Sequence[ReplicatedShard], snapshot_id: str) -> list[int]:
    return [n for n, shard in enumerate(shards) if not shard.ready_replicas(snapshot_id)]
