"""Shards on shard servers; imports no index engine, since it needs none."""

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

_POLL_S = 0.1
_log = logging.getLogger(__name__)


class RemoteShardProvider:
    """Shards on servers; a `Hosting`.

    Every address is asked for its status twice a second from the first snapshot on, so servers
    that die, return or lose a snapshot are noticed without anybody's doing.

    Args:
        topology: Addresses by shard number; the place of one in its list is its replica group.
        wait_s: Seconds without any load under way after which a shard without a ready replica
            counts as missing.
    """

    def __init__(self, topology: Mapping[int, Sequence[str]], wait_s: float) -> None:
        self._topology = topology
        self._wait_s = wait_s
        self._replicas: dict[str, Replica[ShardClient]] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._shards: dict[tuple[str, int], ReplicatedShard] = {}
        self._loading: dict[tuple[str, str], SnapshotLoader[ShardClient]] = {}
        self._begun: set[str] = set()

    async def prepare(self, snapshot: SnapshotRef) -> Sequence[Shard]:
        """Returns the shards of a snapshot once each has a ready replica; see `Hosting.prepare`.

        The servers are told to load replica group by replica group, and go on being told, so that
        one which was away or is replaced catches up, until another snapshot is prepared or this
        one is released. The first snapshot of a collection is given with shards missing, once
        `wait_s` has passed, unless all are: after a router's restart most of the answer is better
        than none. A later one is not: the snapshot before it still answers for all.

        Raises: SettingsError: more shards than there are addresses for. NotReady: not in time.
            SnapshotCorrupt, SnapshotMismatch, Overloaded: what its servers say against it, where
            that leaves a shard without a replica.
        """
        name, count = snapshot.collection, len(snapshot.manifest.shards)
        if count > len(self._topology):
            raise SettingsError(
                f"collection {name!r} has {count} shards, --shards names "
                f"{len(self._topology)}; add the others"
            )
        self._connect()
        loading = self._loading.get((name, snapshot.snapshot_id))
        if loading is None:
            groups = replica_groups(self._topology, count)
            loading = SnapshotLoader(
                name,
                snapshot.snapshot_id,
                [{self._replicas[at]: held for at, held in group.items()} for group in groups],
            )
            self._loading[name, snapshot.snapshot_id] = loading
        shards = [self._shard(name, number) for number in range(count)]
        await self._wait(loading, shards, partly=name not in self._begun)
        self._begun.add(name)
        # Servers drop older ones, each in its own time: do not tell them to load those again.
        for key in [key for key in self._loading if key[0] == name]:
            if self._loading[key] is not loading:
                await self.release(*key)
        return shards

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        """Returns how far live changes are in each ready replica; see `Hosting.progress`."""
        told: dict[int, list[ShardProgress]] = {}
        for number, addresses in self._topology.items():
            key = ShardKey(collection, snapshot_id, number)
            for replica in (self._replicas[one] for one in addresses if one in self._replicas):
                progress = replica.held.get(key) if replica.holds(key) else None
                if progress is not None:
                    told.setdefault(number, []).append(progress)
        return told

    async def release(self, collection: str, snapshot_id: str) -> None:
        """Stops telling servers to load a snapshot.

        They drop it themselves, when no alias names it: other routers may still use it.
        """
        loading = self._loading.pop((collection, snapshot_id), None)
        if loading is not None:
            await loading.close()

    async def close(self) -> None:
        """Ends the watching, and closes the channels."""
        for loading in self._loading.values():
            await loading.close()
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
        """Returns the one object for a shard; it lasts over snapshots, as do its measurements."""
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
        loading: SnapshotLoader[ShardClient],
        shards: Sequence[ReplicatedShard],
        *,
        partly: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_s
        while missing := _missing(shards, loading.snapshot_id):
            if fault := loading.fault(missing):
                raise fault
            if loading.under_way():
                deadline = loop.time() + self._wait_s
            if loop.time() > deadline:
                error = loading.refusal(missing) or self._not_ready(loading, missing)
                if not partly or len(missing) == len(shards):
                    raise error
                _log.warning(
                    "shards missing",
                    extra={
                        "collection": loading.collection,
                        "snapshot_id": loading.snapshot_id,
                        "shards": missing,
                        "reason": error.message,
                    },
                )
                return
            await asyncio.sleep(_POLL_S)

    def _not_ready(
        self, loading: SnapshotLoader[ShardClient], missing: Collection[int]
    ) -> NotReady:
        reasons = []
        for address in dict.fromkeys(one for number in missing for one in self._topology[number]):
            health = self._replicas[address].health
            reasons.append(f"{address}: {health.why if health.away else 'it does not hold it'}")
        numbers = ", ".join(map(str, missing))
        return NotReady(
            f"shard {numbers} of {loading.collection!r} ({loading.snapshot_id}) not ready after "
            f"{self._wait_s:g} s: {'; '.join(reasons)}; start the shard servers"
        )


def _missing(shards: Sequence[ReplicatedShard], snapshot_id: str) -> list[int]:
    return [n for n, shard in enumerate(shards) if not shard.ready_replicas(snapshot_id)]
