"""Provides shards in this process, with the threads that search and change them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from nearline.errors import NearlineError, SnapshotGone
from nearline.store.snapshot import Store
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.index.gpu.gpu_pool import GpuPool
from retrieval.index.thread_pool import ThreadPool
from retrieval.index.vectors import faiss_index
from retrieval.live.delta import LiveDelta
from retrieval.live.delta_protocol import DeltaStats, FollowedDelta, FollowedShard
from retrieval.live.graphs import build_in_process
from retrieval.live.live_changes import LiveChanges
from retrieval.live.log_follower import LogFollower
from retrieval.live.progress import LiveView, ShardProgress
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.protocols.watermark import Watermark
from retrieval.shards.loader import LoadedShard, load_shards
from retrieval.shards.local_shard import LocalShard
from retrieval.snapshots.loaded_snapshots import SnapshotKey
from retrieval.snapshots.memory import HEADROOM, check_memory, snapshot_bytes

# Search threads per scanner thread; there is at least one scanner.
_THREADS_PER_SCANNER = 4


class ThreadedDelta:
    """A delta in memory; a `FollowedDelta`.

    Args:
        delta: The delta.
        worker: A pool of one thread, in which all changes of the delta run.
    """

    def __init__(self, delta: LiveDelta, worker: ThreadPool) -> None:
        self._delta = delta
        self._worker = worker

    @property
    def view(self) -> LiveView:
        """The newest state."""
        return self._delta.view

    async def apply(self, entries: Sequence[ChangeEntry]) -> None:
        """Applies changes; see `LiveDelta.apply`."""
        await self._worker.call(lambda: self._delta.apply(entries))

    async def expire(self, now: datetime) -> None:
        """Hides expired items; see `LiveDelta.expire`."""
        await self._worker.call(lambda: self._delta.expire(now))

    def set_back(self, reason: str) -> None:
        """Does nothing: a new delta, built from the snapshot, will replace this one."""

    def stats(self) -> DeltaStats:
        """Returns the size of the delta."""
        return self._delta.stats()

    async def close(self) -> None:
        """Stops background work."""
        await self._worker.call(self._delta.close)


def make_followed_shard(loaded: LoadedShard, worker: ThreadPool) -> FollowedShard:
    """Returns a loaded shard with a delta in memory, to which live changes are applied.

    Args:
        worker: The pool of one thread of `LiveChanges`.
    """
    (entry,) = (one for one in loaded.snapshot.manifest.shards if one.shard == loaded.number)
    partitions = frozenset(entry.partitions)

    async def new_delta(start: Watermark, log: ChangeLog | None) -> FollowedDelta:
        positions = (at if n in partitions else 0 for n, at in enumerate(start.positions))

        def make() -> LiveDelta:
            return LiveDelta(
                loaded.shard.base,
                loaded.snapshot.manifest,
                loaded.vocabulary,
                loaded.number,
                Watermark(start.log_id, tuple(positions)),
                build_in_process,
            )

        return ThreadedDelta(await worker.call(make), worker)

    return FollowedShard(
        number=loaded.number,
        partitions=tuple(sorted(partitions)),
        new_delta=new_delta,
        attach=loaded.shard.attach,
    )


@dataclass(slots=True, eq=False)
class _Load:
    """A snapshot that is loaded or being loaded.

    files: Its shards, once their files are loaded. ready: Its shards, once they have also reached
    the head of the change log, if there is one. follower: Applies live changes to them.
    """

    files: asyncio.Future[Sequence[LoadedShard]]
    follower: LogFollower | None = None
    ready: asyncio.Future[Sequence[LoadedShard]] = field(init=False)


class LocalShardProvider:
    """Shards of this process; a `ShardProvider`.

    Args:
        store: Store to load snapshots from.
        threads: Number of search threads; FAISS uses one core in each.
        numbers: Shards to load of every snapshot; None loads all.
        headroom: Free memory required for a load, as a multiple of its bytes; 0 disables the check.
        live: Applies live changes to the loaded shards; closed together with them. Optional; None
            disables live changes.
        gpus: GPUs that also hold the vectors; closed together with the shards. Optional.
    """

    def __init__(
        self,
        store: Store,
        threads: int,
        numbers: Collection[int] | None = None,
        *,
        headroom: float = HEADROOM,
        live: LiveChanges | None = None,
        gpus: GpuPool | None = None,
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._headroom = headroom
        self._live = live
        self._gpus = gpus
        self._threads = ThreadPool(threads, faiss_index.use_one_thread)
        # Exact searches read all vectors; with separate threads, other searches do not wait for
        # them.
        scanners = max(1, threads // _THREADS_PER_SCANNER)
        self._scanners = ThreadPool(scanners, faiss_index.use_one_thread)
        # One snapshot at a time: two loads at once would both count the same memory as free.
        self._loader = ThreadPool(1, faiss_index.use_one_thread)
        self._loads: dict[SnapshotKey, _Load] = {}

    async def load(self, snapshot: SnapshotRef) -> Sequence[LoadedShard]:
        """Loads the shards of a snapshot, and brings them to the head of the change log.

        Concurrent calls wait for the same load.

        Raises: as `load_shards` and `LiveChanges.follow`. Overloaded: not enough free memory.
        """
        key = SnapshotKey(snapshot.collection, snapshot.snapshot_id)
        load = self._loads.get(key)
        if load is None:
            work = self._loader.call(partial(self._load_now, snapshot))
            load = self._loads[key] = _Load(asyncio.ensure_future(work))
            load.ready = asyncio.ensure_future(self._ready(snapshot, load))
            load.ready.add_done_callback(partial(self._loaded, key, load))
        try:
            # If the caller is cancelled, the load continues, for other callers and for later calls.
            return await asyncio.shield(load.ready)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if load.ready.cancelled() and not (task and task.cancelling()):
                raise SnapshotGone(
                    f"snapshot {snapshot.snapshot_id} was released before it was ready; request "
                    "the snapshot that is current now"
                ) from None
            raise

    async def prepare(self, snapshot: SnapshotRef) -> Sequence[LocalShard]:
        """Loads a snapshot; see `ShardProvider.prepare`."""
        return [loaded.shard for loaded in await self.load(snapshot)]

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        """Returns the progress of live changes; see `ShardProvider.progress`."""
        if self._live is None:
            return {}
        progress = self._live.progress(collection, snapshot_id)
        return {number: (one,) for number, one in progress.items()}

    async def release(self, collection: str, snapshot_id: str) -> None:
        """Closes a snapshot once all its searches have ended, including abandoned ones."""
        load = self._loads.pop(SnapshotKey(collection, snapshot_id), None)
        if load is None:
            return
        # The load may be waiting for the change log.
        load.ready.cancel()
        await load.files
        await self._threads.settled()
        await self._scanners.settled()
        await self._unload(load)

    async def close(self) -> None:
        """Waits for running searches, then releases the files."""
        for load in self._loads.values():
            load.ready.cancel()
        await asyncio.to_thread(self._loader.close)
        await asyncio.to_thread(self._threads.close)
        await asyncio.to_thread(self._scanners.close)
        if self._live is not None:
            await self._live.close()
        for load in self._loads.values():
            if load.files.done() and not load.files.cancelled() and not load.files.exception():
                _close(load.files.result())
        self._loads.clear()
        if self._gpus is not None:
            await asyncio.to_thread(self._gpus.close)

    async def _ready(self, snapshot: SnapshotRef, load: _Load) -> Sequence[LoadedShard]:
        loaded = await asyncio.shield(load.files)
        if self._live is None:
            return loaded
        worker = self._live.worker
        load.follower = await self._live.begin(
            snapshot, [make_followed_shard(one, worker) for one in loaded]
        )
        if load.follower is not None:
            try:
                await load.follower.ready()
            except NearlineError:
                await self._unload(load)
                raise
        return loaded

    async def _unload(self, load: _Load) -> None:
        if self._live is not None and load.follower is not None:
            await self._live.end(load.follower)
        # Unmapping gigabytes takes a while.
        await asyncio.to_thread(_close, load.files.result())

    def _load_now(self, snapshot: SnapshotRef) -> Sequence[LoadedShard]:
        needed = snapshot_bytes(snapshot.manifest, self._numbers)
        check_memory(snapshot.snapshot_id, needed, self._headroom)
        return load_shards(
            self._store,
            snapshot,
            self._numbers,
            threads=self._threads,
            scanners=self._scanners,
            gpus=self._gpus,
        )

    def _loaded(
        self, key: SnapshotKey, load: _Load, ready: asyncio.Future[Sequence[LoadedShard]]
    ) -> None:
        failed = ready.cancelled() or ready.exception() is not None
        if failed and self._loads.get(key) is load:
            del self._loads[key]


def _close(loaded: Sequence[LoadedShard]) -> None:
    for one in loaded:
        one.shard.close()
