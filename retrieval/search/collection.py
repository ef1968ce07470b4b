"""A collection as the router serves it: one snapshot and its shards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from nearline.contract import Coverage, Term
from nearline.store.snapshot import KIND_NAMES
from retrieval.behaviour.model import BehaviourModel
from retrieval.changelog.start_position import watermark_of
from retrieval.protocols import metrics
from retrieval.protocols.shard import Shard
from retrieval.protocols.snapshot import COSINE, SnapshotRef
from retrieval.search.fusion import FusionParams
from retrieval.search.price import IndexPrice
from retrieval.trends.trend_lists import newest_known_us
from retrieval.trends.trend_reader import TrendReader


class ServedCollection:
    """One snapshot of a collection, with its shards and the facts that requests depend on.

    Args:
        snapshot: The snapshot to serve.
        shards: By number, 0..n-1.
        learned: The model that the snapshot learned from interactions; None if it has none.
        trends: Counts of interactions as they are recorded. Optional; None without Redis.
        newest: Returns the items that changed last, at most a number, newest first. Optional.

    attribute_kinds: By name, a kind of `nearline.items.attributes.KINDS`. single_valued: Names of
    attributes that hold no lists. declared: Names of attributes that items did not bring.
    index_price: What a query costs. approximate: Whether the index may miss some of the best hits.
    trained_us: Newest interaction that the model knows; 0 without one. lexical_chunks: Chunks in
    the lexical index; 0 without one.
    watermark: Position in the change log up to which the snapshot contains all changes.
    variant: Names the policies on trial with which a request is answered; empty for those in force.
    """

    def __init__(
        self,
        snapshot: SnapshotRef,
        shards: Sequence[Shard],
        learned: BehaviourModel | None = None,
        trends: TrendReader | None = None,
        newest: Callable[[int], Sequence[str]] = lambda most: (),
    ) -> None:
        manifest = snapshot.manifest
        self.learned = learned
        self.trends = trends
        self.newest = newest
        self.local_behaviour = learned.local if learned else None
        self.name = snapshot.collection
        self.epoch = snapshot.epoch
        self.snapshot_id = snapshot.snapshot_id
        self.trained_us = newest_known_us(manifest)
        self.fingerprint = manifest.embedder.fingerprint
        self.dim = manifest.dim
        self.documents = manifest.documents
        self.chunks = manifest.chunks
        self.unit_length = manifest.metric == COSINE
        self.has_words = manifest.HasField("lexical")
        # A Milvus server may lack lexical search; texts are then searched by vector alone.
        self.words_by_default = self.has_words and all(shard.has_words for shard in shards)
        self.language = manifest.lexical.language
        self.lexical_chunks = manifest.lexical.chunks
        self.has_model = bool(self.fingerprint)
        # All other indexes compare all vectors, so they miss no result.
        self.approximate = any(name in manifest.index_factory for name in ("HNSW", "IVF", "NSG"))
        self.index_price = IndexPrice.of(manifest)
        self.fusion = FusionParams.of(manifest)
        self.chunking = manifest.chunking
        self.reranker = manifest.reranker if manifest.HasField("reranker") else None
        self.watermark = watermark_of(manifest)
        self.attribute_kinds = {
            one.name: KIND_NAMES[one.kind] for one in manifest.attributes if one.kind in KIND_NAMES
        }
        self.declared = {one.name for one in manifest.attributes if not one.inferred}
        self.list_valued = frozenset(one.name for one in manifest.attributes if one.is_list)
        self.single_valued = frozenset(one.name for one in manifest.attributes if not one.is_list)
        self.shards = tuple(shards)
        self.variant = ""
        self.observe_search = metrics.stage_seconds.labels(self.name, "search").observe
        self._full_coverage = Coverage(shards_answered=len(shards), shards_total=len(shards))

    def coverage(self, failures: Mapping[int, object]) -> Coverage:
        """Returns the coverage of an answer that lacks the failed shards."""
        if not failures:
            return self._full_coverage
        total = len(self.shards)
        return Coverage(
            shards_answered=total - len(failures),
            shards_total=total,
            missing_shards=tuple(sorted(failures)),
        )

    def terms(self, counts: Sequence[tuple[str, int]]) -> Sequence[Term]:
        """Returns query words with their inverse document frequency.

        Args:
            counts: Each word with the number of chunks that contain it.
        """
        return [
            Term(word, n, math.log1p((self.lexical_chunks - n + 0.5) / (n + 0.5)))
            for word, n in counts
        ]

    async def ready_replicas(self) -> list[int]:
        """Returns the number of ready replicas of each shard."""
        return [int(await shard.ready(self.snapshot_id)) for shard in self.shards]
