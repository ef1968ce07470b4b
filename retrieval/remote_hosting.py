"""Shards on shard servers; imports no index engine, since it needs none."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from nearline.errors import NearlineError, NotReady, SettingsError
from nearline.snapshot import Store
from retrieval import metrics
from retrieval.in_force import SnapshotInForce, in_force
from retrieval.remote_shard import RemoteShard, ShardClient
from retrieval.served import ServedCollection

_POLL_S = 0.1
_STATUS_TIMEOUT_S = 2.0


class RemoteShards:
    """Shards on servers.

    Args:
        topology: Addresses by shard number; the first of each is used.
        wait_s: Seconds to wait for them to be ready.
    """

    def __init__(self, topology: Mapping[int, Sequence[str]], wait_s: float) -> None:
        self._topology = topology
        self._wait_s = wait_s
        self._clients: dict[str, ShardClient] = {}

    async def load(self, store: Store, collections: Sequence[str]) -> list[ServedCollection]:
        """Waits until the servers hold what the aliases name.

        Raises: SettingsError: a collection has more shards than there are addresses for.
            NotReady: a server does not answer, or does not hold its shard, in time.
        """
        snapshots = await asyncio.to_thread(in_force, store, collections)
        for snapshot in snapshots:
            count = len(snapshot.manifest.shards)
            if count > len(self._topology):
                raise SettingsError(
                    f"collection {snapshot.collection!r} has {count} shards, --shards names "
                    f"{len(self._topology)}; add the others"
                )
        for addresses in self._topology.values():
            if addresses[0] not in self._clients:
                self._clients[addresses[0]] = ShardClient(addresses[0])
        await self._wait(snapshots)
        return [self._served(snapshot) for snapshot in snapshots]

    async def close(self) -> None:
        """Closes the channels."""
        for client in self._clients.values():
            await client.close()

    def _served(self, snapshot: SnapshotInForce) -> ServedCollection:
        return ServedCollection(
            snapshot,
            [
                RemoteShard(
                    self._client(number),
                    snapshot.collection,
                    number,
                    observe=metrics.batch_vectors.labels(snapshot.collection, str(number)).observe,
                )
                for number in range(len(snapshot.manifest.shards))
            ],
        )

    def _client(self, number: int) -> ShardClient:
        return self._clients[self._topology[number][0]]

    async def _wait(self, snapshots: Sequence[SnapshotInForce]) -> None:
        deadline = asyncio.get_running_loop().time() + self._wait_s
        wanted = {
            (snapshot.collection, snapshot.snapshot_id, number)
            for snapshot in snapshots
            for number in range(len(snapshot.manifest.shards))
        }
        why = ""
        while True:
            for client in set(map(self._client, sorted({number for _, _, number in wanted}))):
                mine = {key for key in wanted if self._client(key[2]) is client}
                try:
                    status = await client.status(_STATUS_TIMEOUT_S)
                except NearlineError as error:
                    why = error.message
                    continue
                held = {(s.collection, s.snapshot_id, s.shard) for s in status.shards if s.ready}
                wanted -= held & mine
                if mine - held:
                    why = f"{client.address} does not hold {_named(mine - held)}"
            if not wanted:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise NotReady(
                    f"{_named(wanted)} not ready after {self._wait_s:g} s: {why}; start the shard "
                    "servers, and restart those that hold an older snapshot"
                )
            await asyncio.sleep(_POLL_S)


def _named(keys: Collection[tuple[str, str, int]]) -> str:
    return ", ".join(
        f"shard {number} of {collection!r} ({snapshot})"
        for collection, snapshot, number in sorted(keys)
    )
