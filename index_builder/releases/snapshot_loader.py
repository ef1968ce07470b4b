"""Loads a snapshot in this process, whether or not an alias names it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from index_builder.releases.offline_eval import TrainedSnapshot
from nearline.contract import Embedder
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.tables import read_tables
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.recommend.policies import Policies, default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.shards.loader import LoadedShard
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.snapshots.golden_queries import GoldenQueries


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSnapshot:
    """A snapshot ready for requests.

    manifest: As stored.
    shards: By number.
    recommender: Builds lists without a cache and without a user.
    golden: Its golden queries; None if it has none.
    trained: What it learned from interactions; None if it was built without.
    """

    store: Store
    manifest: snapshot_pb2.Manifest
    served: ServedCollection
    shards: Sequence[LoadedShard]
    embedders: Embedders
    recommender: RecommendationService
    golden: GoldenQueries | None
    trained: TrainedSnapshot | None

    @property
    def id(self) -> str:
        """Id of the snapshot."""
        return self.manifest.snapshot_id

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its embedder; empty if its vectors were supplied."""
        return self.manifest.embedder.fingerprint

    def ids(self) -> list[str]:
        """Returns the ids of all documents, shard by shard."""
        found: list[str] = []
        for one in self.shards:
            items = one.shard.base.items
            found += [items.id(document) for document in range(items.documents)]
        return found


@contextlib.asynccontextmanager
async def load_snapshot(
    store: Store,
    collection: str,
    snapshot_id: str,
    embedders: Mapping[str, Embedder],
    policies: Policies | None = None,
) -> AsyncIterator[LoadedSnapshot]:
    """Loads a snapshot for the duration of the context; fetches the files of an object store first.

    Args:
        embedders: Embedding services by name; may be empty.
        policies: Policies of the surfaces; if None, the built-in ones.
    Raises: NotFound: there is no such snapshot. SnapshotCorrupt, SnapshotMismatch: no router could
        load it either. Overloaded: there is not enough free memory. A recall of golden queries
        below the manifest raises nothing here.
    """
    manifest = await asyncio.to_thread(store.manifest, collection, snapshot_id)
    await asyncio.to_thread(store.fetch, collection, snapshot_id)
    # The gate measures recall itself; the promise in the manifest would refuse the load first.
    plain = snapshot_pb2.Manifest()
    plain.CopyFrom(manifest)
    plain.quality.recall_at_10 = 0
    snapshot = SnapshotRef(collection=collection, epoch=0, manifest=plain)
    provider = LocalShardProvider(store, threads=1)
    try:
        shards = await provider.load(snapshot)
        trained = await asyncio.to_thread(_read_trained, store, manifest)
        served = ServedCollection(
            snapshot, [one.shard for one in shards], trained.model if trained else None
        )
        collections = ServedCollections()
        collections.serve(served)
        endpoints = Embedders(embedders)
        folder = store.snapshot_folder(collection, snapshot_id)
        yield LoadedSnapshot(
            store=store,
            manifest=manifest,
            served=served,
            shards=shards,
            embedders=endpoints,
            recommender=RecommendationService(collections, policies or default_policies()),
            golden=GoldenQueries.read(folder, manifest),
            trained=trained,
        )
    finally:
        await provider.close()


def _read_trained(store: Store, manifest: snapshot_pb2.Manifest) -> TrainedSnapshot | None:
    if not manifest.HasField("behaviour"):
        return None
    return TrainedSnapshot.of(manifest.behaviour, read_tables(store, manifest))
