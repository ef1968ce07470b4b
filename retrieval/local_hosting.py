"""Shards in this process; a `Hosting`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial

from nearline.snapshot import Store
from retrieval.backends import faiss_index
from retrieval.catalogue import LoadedShard, load_shards
from retrieval.in_force import SnapshotInForce
from retrieval.life.holdings import Key
from retrieval.life.memory import HEADROOM, bytes_of, check_memory
from retrieval.local_shard import LocalShard
from retrieval.search_threads import SearchThreads


class LocalShards:
    """Shards of this process, and the threads that search them.

    Args:
        store: Where snapshots are loaded from.
        threads: Threads; FAISS stays on one core in each.
        numbers: Shards to load of every snapshot; None: all.
        headroom: Free memory wanted for a load, as a multiple of its bytes; 0: do not look.
    """

    def __init__(
        self,
        store: Store,
        threads: int,
        numbers: Collection[int] | None = None,
        *,
        headroom: float = HEADROOM,
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._headroom = headroom
        self._threads = SearchThreads(threads, faiss_index.use_one_thread)
        # One snapshot after another: two at once would each count the same memory as free.
        self._loader = SearchThreads(1, faiss_index.use_one_thread)
        self._loads: dict[Key, asyncio.Future[Sequence[LoadedShard]]] = {}

    async def load(self, snapshot: SnapshotInForce) -> Sequence[LoadedShard]:
        """Loads the shards of a snapshot; whoever asks again waits for the same load.

        Raises: as `load_shards`. Overloaded: not enough free memory.
        """
        key = Key(snapshot.collection, snapshot.snapshot_id)
        load = self._loads.get(key)
        if load is None:
            work = self._loader.call(partial(self._load_now, snapshot))
            load = self._loads[key] = asyncio.ensure_future(work)
            load.add_done_callback(partial(self._loaded, key))
        # Whoever goes away leaves the load to those who still wait, or come back for it.
        return await asyncio.shield(load)

    async def prepare(self, snapshot: SnapshotInForce) -> Sequence[LocalShard]:
        """Loads a snapshot; see `Hosting.prepare`."""
        return [loaded.shard for loaded in await self.load(snapshot)]

    async def release(self, collection: str, snapshot_id: str) -> None:
        """Closes a snapshot once searches that nobody waits for any more have ended, too."""
        load = self._loads.pop(Key(collection, snapshot_id), None)
        if load is None:
            return
        loaded = await load
        await self._threads.settled()
        # Unmapping gigabytes takes a while.
        await asyncio.to_thread(_close, loaded)

    async def close(self) -> None:
        """Waits for searches that run, then lets go of the files."""
        await asyncio.to_thread(self._loader.close)
        await asyncio.to_thread(self._threads.close)
        for load in self._loads.values():
            if load.done() and not load.cancelled() and load.exception() is None:
                _close(load.result())
        self._loads.clear()

    def _load_now(self, snapshot: SnapshotInForce) -> Sequence[LoadedShard]:
        needed = bytes_of(snapshot.manifest, self._numbers)
        check_memory(snapshot.snapshot_id, needed, self._headroom)
        return load_shards(self._store, snapshot, self._numbers, threads=self._threads)

    def _loaded(self, key: Key, load: asyncio.Future[Sequence[LoadedShard]]) -> None:
        failed = load.cancelled() or load.exception() is not None
        if failed and self._loads.get(key) is load:
            del self._loads[key]


def _close(loaded: Sequence[LoadedShard]) -> None:
    for one in loaded:
        one.shard.close()
