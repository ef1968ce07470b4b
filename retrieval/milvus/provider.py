"""Provides the shards of snapshots in Milvus; a `ShardProvider`."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from nearline.contract import HitLevel, SearchMode
from nearline.errors import NearlineError, NotFound, NotReady, SnapshotGone, SnapshotMismatch
from nearline.store.snapshot import KIND_NAMES, Store
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change
from retrieval.changelog.retention import followable_logs
from retrieval.index.lexical.vocabulary import FOLDER, Vocabulary
from retrieval.live.live_changes import LiveChanges
from retrieval.live.log_follower import LogFollower
from retrieval.live.progress import ShardProgress
from retrieval.milvus.change_merge import ChangeMerger
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState, CollectionStates, drop_removed
from retrieval.milvus.delta import follow_snapshot
from retrieval.milvus.layout import collection_name
from retrieval.milvus.live_collection import LiveCollection
from retrieval.milvus.reader import MilvusReader, ReadContext
from retrieval.milvus.searcher import MilvusSearcher, VectorIndexInfo
from retrieval.milvus.shard import MilvusShard
from retrieval.milvus.stored_items import StoredRows
from retrieval.protocols import metrics
from retrieval.protocols.shard import ShardOptions, ShardQueries
from retrieval.protocols.snapshot import COSINE, SnapshotRef
from retrieval.redis_client.connection import Redis
from retrieval.redis_client.lease import Lease, RedisLease
from retrieval.search.collection import ServedCollection
from retrieval.snapshots.loaded_snapshots import SnapshotKey


def lease_name(collection: str, milvus_collection: str, started_us: int) -> str:
    """Returns the name of the lock; exports of one snapshot to two servers have different names.

    Args:
        collection: Collection name.
        milvus_collection: Name of the Milvus collection.
        started_us: Start of the export, microseconds since 1970.
    """
    return f"nl:{{{collection}}}:milvus:{milvus_collection}:{started_us}"


FLAT = "FLAT"
_DEFAULT_EF_SEARCH = 64
_PROBE_K = 10
_log = logging.getLogger(__name__)


class _OpenSnapshot(NamedTuple):
    """A snapshot that is ready.

    merger: Checks and merges its changes. collection: Receives its live changes; None if none are
    applied. follower: Follows its log; None if it has none.
    """

    shard: MilvusShard
    merger: ChangeMerger
    collection: LiveCollection | None
    follower: LogFollower | None


class MilvusShardProvider:
    """Serves each snapshot in Milvus as one shard, however many its manifest has.

    Args:
        store: Store of the snapshots; their vocabularies are read from it.
        client: Client of the Milvus server; closed by `close`.
        live: Optional; follows the logs and is closed by `close`. None disables live changes.
        redis: Redis that holds the leases; the caller closes it. If None, no log is followed.
    """

    def __init__(
        self,
        store: Store,
        client: MilvusClient,
        *,
        live: LiveChanges | None = None,
        redis: Redis | None = None,
    ) -> None:
        self._store = store
        self._client = client
        self._states = CollectionStates(client)
        self._live = live
        self._redis = redis
        self._states_ready = False
        self._snapshots: dict[SnapshotKey, asyncio.Task[_OpenSnapshot]] = {}

    async def prepare(self, snapshot: SnapshotRef) -> Sequence[MilvusShard]:
        """Prepares a snapshot once for all callers; see `ShardProvider.prepare`."""
        key = SnapshotKey(snapshot.collection, snapshot.snapshot_id)
        opening = self._snapshots.get(key)
        if opening is None:
            opening = self._snapshots[key] = asyncio.ensure_future(self._open(snapshot))
            opening.add_done_callback(partial(self._forget_if_failed, key))
        try:
            return [(await asyncio.shield(opening)).shard]
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if opening.cancelled() and not (task and task.cancelling()):
                raise SnapshotGone(
                    f"snapshot {snapshot.snapshot_id} was released before it was ready; request "
                    "the current one"
                ) from None
            raise

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, Sequence[ShardProgress]]:
        """Returns the progress of live changes; see `ShardProvider.progress`."""
        if self._live is None:
            return {}
        found = self._live.progress(collection, snapshot_id)
        return {number: (one,) for number, one in found.items()}

    def check(self, served: ServedCollection, change: Change) -> None:
        """Checks that Milvus can store a change; see `ChangeMerger.check`."""
        opening = self._snapshots.get(SnapshotKey(served.name, served.snapshot_id))
        if opening is not None and opening.done() and not opening.cancelled():
            opening.result().merger.check(change)

    async def release(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot, also in Milvus if no alias of the store names it.

        A router that still answers from the snapshot makes Milvus load it again.
        """
        opening = self._snapshots.pop(SnapshotKey(collection, snapshot_id), None)
        if opening is not None:
            await self._end(opening)
        try:
            named = await asyncio.to_thread(self._aliased_snapshots, collection)
            if snapshot_id not in named:
                await self._client.release(collection_name(collection, snapshot_id))
        except SnapshotGone:
            # The snapshot was never exported.
            return
        except NearlineError as error:
            # The failure only costs memory in Milvus.
            _log.warning(
                "milvus keeps a snapshot in memory",
                extra={
                    "collection": collection,
                    "snapshot_id": snapshot_id,
                    "reason": error.message,
                },
            )

    async def drop(self, collection: str) -> None:
        """Drops what Milvus holds of a collection whose snapshots were all removed."""
        await drop_removed(self._store, collection, self._client)

    async def close(self) -> None:
        """Closes the shards and the connection."""
        every = [*self._snapshots.values()]
        self._snapshots.clear()
        for opening in every:
            await self._end(opening)
        if self._live is not None:
            await self._live.close()
        await self._client.close()

    async def _open(self, snapshot: SnapshotRef) -> _OpenSnapshot:
        begun = time.perf_counter()
        name = collection_name(snapshot.collection, snapshot.snapshot_id)
        if not self._states_ready:
            await self._states.create()
            self._states_ready = True
        state = self._check_state(snapshot, await self._states.read(name))
        await self._client.load(name)
        rows = await self._client.count(name)
        if snapshot.manifest.chunks and not rows:
            raise NotReady(
                f"Milvus collection {name} at {self._client.uri} has lost all of its rows; "
                f"{self._remedy(snapshot)} --again"
            )
        shard, merger = await self._make_shard(snapshot, name, state)
        await _probe(shard, snapshot.manifest, words=state.words)
        collection = follower = None
        if self._live is not None:
            collection = self._live_collection(snapshot, name, shard, merger)
            follower = await self._follow(self._live, snapshot, collection, state, shard)
        labels = (snapshot.collection, "0")
        metrics.shard_vectors.labels(*labels).set(rows)
        _log.info(
            "snapshot ready in milvus",
            extra={
                "collection": snapshot.collection,
                "snapshot_id": snapshot.snapshot_id,
                "epoch": snapshot.epoch,
                "milvus_collection": name,
                "index": state.index,
                "rows": rows,
                "elapsed_s": round(time.perf_counter() - begun, 3),
            },
        )
        return _OpenSnapshot(shard, merger, collection, follower)

    async def _end(self, opening: asyncio.Task[_OpenSnapshot]) -> None:
        opening.cancel()
        await asyncio.wait((opening,))
        if not opening.cancelled() and opening.exception() is None:
            opened = opening.result()
            if self._live is not None and opened.follower is not None:
                await self._live.end(opened.follower)
            if opened.collection is not None:
                await opened.collection.close()
            await opened.shard.close()

    def _live_collection(
        self, snapshot: SnapshotRef, name: str, shard: MilvusShard, merger: ChangeMerger
    ) -> LiveCollection:
        def new_lease(started_us: int) -> Lease:
            assert self._redis is not None
            lease = lease_name(snapshot.collection, name, started_us)
            return RedisLease(self._redis, lease, "writes of live changes into Milvus")

        return LiveCollection(
            self._client,
            name,
            shard.reader.context,
            merger,
            None if self._redis is None else new_lease,
            logs=partial(followable_logs, self._store, snapshot.collection),
            remedy=self._remedy(snapshot),
        )

    async def _follow(
        self,
        live: LiveChanges,
        snapshot: SnapshotRef,
        collection: LiveCollection,
        state: CollectionState,
        shard: MilvusShard,
    ) -> LogFollower | None:
        """Follows the log for a snapshot; returns once all of its present changes are applied.

        Raises: SnapshotMismatch: The collection has changes of a log that cannot be followed.
        """
        follower = await live.begin(snapshot, [follow_snapshot(collection, shard.attach)])
        if follower is None and state.log_id:
            raise SnapshotMismatch(
                f"Milvus collection {collection.name} has live changes of change log "
                f"{state.log_id}, but the store names no log for {snapshot.collection!r}; "
                f"{self._remedy(snapshot)} --again"
            )
        if follower is not None:
            try:
                await follower.ready()
            except BaseException:
                await live.end(follower)
                await collection.close()
                raise
        return follower

    def _check_state(self, snapshot: SnapshotRef, state: CollectionState | None) -> CollectionState:
        where = f"snapshot {snapshot.snapshot_id} of {snapshot.collection!r}"
        if state is None:
            raise NotReady(
                f"{where} is not in Milvus at {self._client.uri}; {self._remedy(snapshot)}"
            )
        if not state.whole:
            raise NotReady(
                f"{where} is incomplete in Milvus at {self._client.uri}: its export is running or "
                f"was interrupted; {self._remedy(snapshot)}"
            )
        if state.partition_by:
            raise SnapshotMismatch(
                f"{where} is partitioned by {state.partition_by!r} in Milvus, which is no longer "
                f"supported; {self._remedy(snapshot)}"
            )
        manifest = snapshot.manifest
        if (state.documents, state.chunks) != (manifest.documents, manifest.chunks):
            raise SnapshotMismatch(
                f"{where} has {manifest.documents:,} documents and {manifest.chunks:,} chunks, but "
                f"{state.documents:,} and {state.chunks:,} were exported to Milvus at "
                f"{self._client.uri}; {self._remedy(snapshot)} --again"
            )
        return state

    def _remedy(self, snapshot: SnapshotRef) -> str:
        return (
            f"run nearline snapshots export {snapshot.snapshot_id} --collection "
            f"{snapshot.collection} --to milvus --milvus-uri {self._client.uri}"
        )

    async def _make_shard(
        self, snapshot: SnapshotRef, name: str, state: CollectionState
    ) -> tuple[MilvusShard, ChangeMerger]:
        manifest = snapshot.manifest
        vocabulary = None
        if state.words:
            vocabulary = await asyncio.to_thread(self._vocabulary, snapshot)
        capabilities = await self._client.capabilities()
        kinds = {
            one.name: KIND_NAMES[one.kind] for one in manifest.attributes if one.kind in KIND_NAMES
        }
        analyser = None if vocabulary is None else vocabulary.analyser
        merger = ChangeMerger(snapshot.collection, manifest, kinds, analyser)
        context = ReadContext(expiring=state.expiring, single_valued=state.single_valued)
        reader = MilvusReader(self._client, name, context, kinds)
        mean = -(-manifest.chunks // max(1, manifest.documents))
        info = VectorIndexInfo(
            capabilities.version,
            state.index == FLAT,
            manifest.default_ef_search or _DEFAULT_EF_SEARCH,
            manifest.chunks,
            min(max(1, manifest.max_chunks_per_document), 2 * mean),
            capabilities.lite,
        )
        shard = MilvusShard(
            snapshot.snapshot_id,
            reader,
            MilvusSearcher(reader, info, vocabulary),
            StoredRows(reader, unit_length=manifest.metric == COSINE),
            has_words=vocabulary is not None,
            observe=metrics.batch_vectors.labels(snapshot.collection, "0").observe,
        )
        return shard, merger

    def _vocabulary(self, snapshot: SnapshotRef) -> Vocabulary:
        collection, snapshot_id = snapshot.collection, snapshot.snapshot_id
        self._store.fetch(collection, snapshot_id, [f"{FOLDER}/"])
        return Vocabulary.load(self._store.snapshot_folder(collection, snapshot_id))

    def _aliased_snapshots(self, collection: str) -> frozenset[str]:
        try:
            record = self._store.alias_in_force(collection)
        except NotFound:
            return frozenset()
        return frozenset({record.current, record.canary})

    def _forget_if_failed(self, key: SnapshotKey, opening: asyncio.Task[_OpenSnapshot]) -> None:
        failed = opening.cancelled() or opening.exception() is not None
        if failed and self._snapshots.get(key) is opening:
            del self._snapshots[key]


async def _probe(shard: MilvusShard, manifest: snapshot_pb2.Manifest, *, words: bool) -> None:
    """Searches once by vector and by words, so that problems surface before the first request."""
    vector = np.full((1, manifest.dim), 1 / math.sqrt(manifest.dim), np.float32)
    options = ShardOptions(_PROBE_K, level=HitLevel.CHUNK)
    (found,) = await shard.search(manifest.snapshot_id, ShardQueries(vector), options)
    if manifest.chunks and not found.ids:
        raise NotReady(
            f"Milvus finds nothing in snapshot {manifest.snapshot_id} of {manifest.collection!r}, "
            "although it has its rows; its servers may still be loading them"
        )
    if words:
        none = ShardQueries(np.empty((0, manifest.dim), np.float32), ("a",))
        by_words = options._replace(mode=SearchMode.LEXICAL)
        await shard.search(manifest.snapshot_id, none, by_words)
