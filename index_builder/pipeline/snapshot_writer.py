"""Writer of a snapshot: indexes, items, golden queries, report and manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.attribute_columns import write_attributes
from index_builder.documents.bad_rows import BadRows
from index_builder.documents.items_writer import write_items
from index_builder.documents.records import SourceCount
from index_builder.documents.spool import Spool
from index_builder.documents.vector_file import VectorFile
from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.execution.embedding import embed_queries
from index_builder.execution.progress import StageClock
from index_builder.indexes import faiss_writer, golden_sample
from index_builder.indexes.exact_search import ExactResults, K, recall_of, scan
from index_builder.indexes.faiss_writer import SearchDefaults
from index_builder.indexes.fusion_tuner import tune
from index_builder.indexes.lexical_writer import write_lexical
from index_builder.indexes.shard_builder import build_shard
from index_builder.lineage.lineage import Lineage
from index_builder.lineage.parent_snapshot import DELETED_FILE
from index_builder.options.build_options import COSINE, BuildOptions
from index_builder.options.index_selection import IndexChoice
from index_builder.pipeline.build_report import report_to_json
from index_builder.pipeline.search_fields import SearchFields
from nearline.contract import Embedder, EmbedderInfo
from nearline.store.durable import store_errors, write_durably
from nearline.store.manifest_files import list_files
from nearline.store.snapshot import RERANKER_FILE, SCHEMA_VERSION, partitions_of, shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.attribute_table import ATTRIBUTES_FILE
from retrieval.index.item_table import ITEMS_FILE
from retrieval.index.lexical.synonym_rules import SynonymRule
from retrieval.index.lexical.synonyms import SYNONYMS, load_rules
from retrieval.index.lexical.vocabulary import FOLDER
from retrieval.index.vectors.vector_index import INDEX_FILE
from retrieval.search.fusion import CANDIDATES, DEFAULT_DENSE_WEIGHT, NORMALISATION


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInputs:
    """The inputs of a snapshot.

    fields: Attributes to filter on. search_fields: Fields to search in.
    embedder_info: Describes the embedder; None if the user brings the vectors.
    device: Builds the indexes and trains the factors.
    choice: How the index was chosen; None if nothing was measured.
    lineage: The snapshot and changes that the build continues; None if it consists of its sources
        only.
    deleted_file: File of deleted documents, for a build with a lineage.
    inherited: Snapshot to inherit fusion weight and answer calibration from.
    popularity: By document id, 0..1; None if nothing is known about it.
    """

    spool: Spool
    vectors: VectorFile
    options: BuildOptions
    sources: Sequence[SourceCount]
    bad_rows: BadRows
    fields: Sequence[snapshot_pb2.AttributeField]
    search_fields: SearchFields
    embedder: Embedder | None
    embedder_info: EmbedderInfo | None
    clock: StageClock
    device: BuildDevice = CPU_DEVICE
    choice: IndexChoice | None = None
    lineage: Lineage | None = None
    deleted_file: Path | None = None
    inherited: snapshot_pb2.Manifest | None = None
    popularity: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _IndexSummary:
    """Search defaults of the indexes, and their results for the golden queries."""

    defaults: SearchDefaults
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


async def write_snapshot(
    inputs: SnapshotInputs, folder: Path, snapshot_id: str
) -> snapshot_pb2.Manifest:
    """Writes all files of a snapshot except the manifest.

    Returns: The manifest.
    Raises: InvalidRequest: the index cannot be built. StoreError: no space, no permission.
    """
    spool, options, clock = inputs.spool, inputs.options, inputs.clock
    vectors = inputs.vectors.matrix(spool.chunks)
    factory = faiss_writer.choose_factory(options.index, spool.chunks)
    with clock.stage("golden", spool.chunks, "vectors") as advance:
        queries = await _golden_vectors(inputs, vectors)
        k = min(K, spool.chunks)
        exact = await clock.in_thread(lambda: scan(vectors, queries, k, advance))
    with clock.stage("index", spool.chunks, "vectors") as advance:
        built = await clock.in_thread(
            lambda: _write_shards(inputs, vectors, factory, exact, folder, advance)
        )
    recall = recall_of(exact, vectors, built.rows, built.scores)
    manifest = _manifest(inputs, snapshot_id, factory, vectors.shape[1], built.defaults)
    manifest.quality.queries = len(queries)
    manifest.quality.recall_at_10 = recall
    floor = float(np.median(exact.lowest)) if len(queries) else 0.0
    await _add_lexical(inputs, vectors, manifest, folder, floor)
    _inherit(inputs, manifest, folder)
    if inputs.lineage is not None and inputs.deleted_file is not None:
        with store_errors(folder):
            (folder / DELETED_FILE).parent.mkdir()
            write_durably(folder / DELETED_FILE, inputs.deleted_file.read_bytes())
    with clock.stage("report"), store_errors(folder):
        target = folder / "golden"
        target.mkdir()
        golden_sample.write_golden(target / "queries.arrow", exact, spool)
        report = report_to_json(
            manifest,
            inputs.vectors,
            inputs.bad_rows,
            clock.seconds,
            folder,
            inputs.choice,
            inputs.device,
        )
        write_durably(target / "report.json", report.encode())
        manifest.files.extend(await clock.in_thread(lambda: list_files(folder)))
    manifest.create_time.GetCurrentTime()
    return manifest


async def _golden_vectors(
    inputs: SnapshotInputs, vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    options = inputs.options
    rows = golden_sample.sample_rows(len(vectors), options.golden_queries, options.seed)
    embedder, info = inputs.embedder, inputs.embedder_info
    if len(rows) == 0:
        return np.empty((0, vectors.shape[1]), np.float32)
    if embedder is None or info is None:
        unit = options.index.metric == COSINE
        return golden_sample.mixtures(vectors, rows, options.seed, unit=unit)
    texts = golden_sample.query_texts(inputs.spool, rows, options.seed)
    return await embed_queries(texts, embedder, info)


async def _add_lexical(
    inputs: SnapshotInputs,
    vectors: NDArray[np.float32],
    manifest: snapshot_pb2.Manifest,
    folder: Path,
    floor: float,
) -> None:
    """Writes the lexical index, if there are words, and its fusion parameters."""
    spool, options, clock = inputs.spool, inputs.options, inputs.clock
    if not options.lexical:
        return
    with clock.stage("lexical", spool.chunks, "chunks") as advance:
        card = await clock.in_thread(
            lambda: write_lexical(
                spool,
                options.shards,
                options.language,
                folder,
                advance,
                weights=inputs.search_fields.weights,
                languages=inputs.search_fields.languages,
                popularity=inputs.popularity,
                synonyms=_synonyms(inputs),
            )
        )
    if card is None:
        return
    manifest.lexical.CopyFrom(card)
    manifest.fusion.normalisation = NORMALISATION
    manifest.fusion.dense_constant = floor
    manifest.fusion.candidates = CANDIDATES
    manifest.fusion.dense_weight = DEFAULT_DENSE_WEIGHT
    manifest.fusion.origin = "default"
    judged, embedder, info = options.judged, inputs.embedder, inputs.embedder_info
    if judged is None or embedder is None or info is None:
        return
    with clock.stage("tune", len(judged.queries), "queries") as advance:
        queries = await embed_queries(list(judged.queries.values()), embedder, info)
        tuned = await clock.in_thread(
            lambda: tune(judged, queries, vectors, spool, options.shards, folder, floor, advance)
        )
    manifest.fusion.dense_weight = tuned.dense_weight
    manifest.fusion.origin = "tuned"
    manifest.quality.tuning_queries = tuned.queries
    manifest.quality.tuning_ndcg_at_10 = tuned.ndcg_at_10


def _synonyms(inputs: SnapshotInputs) -> Sequence[SynonymRule]:
    """Returns the synonyms of the options, else those of the snapshot that the build continues."""
    if inputs.options.synonyms is not None:
        return inputs.options.synonyms.rules
    lineage = inputs.lineage
    parent = lineage.parent if lineage is not None else None
    if lineage is None or parent is None or not parent.lexical.synonym_rules:
        return ()
    lineage.store.fetch(parent.collection, parent.snapshot_id, [f"{FOLDER}/{SYNONYMS}"])
    folder = lineage.store.snapshot_folder(parent.collection, parent.snapshot_id)
    return load_rules(folder / FOLDER)


def _write_shards(
    inputs: SnapshotInputs,
    vectors: NDArray[np.float32],
    factory: str,
    exact: ExactResults,
    folder: Path,
    advance: faiss_writer.Advance,
) -> _IndexSummary:
    found_rows, found_scores = [], []
    defaults = SearchDefaults(0, 0)
    k = max(1, exact.rows.shape[1])
    version_fields = inputs.spool.used_version_fields()
    for shard in range(inputs.options.shards):
        rows = inputs.spool.shard_chunk_rows(shard)
        target = shard_folder(folder, shard)
        with store_errors(target):
            target.mkdir(parents=True)
            index, shard_defaults = build_shard(
                factory,
                vectors,
                rows,
                inputs.options.index,
                exact,
                target / INDEX_FILE,
                shard=shard,
                seed=inputs.options.seed,
                advance=advance,
                device=inputs.device,
            )
            defaults = max(defaults, shard_defaults)
            write_items(target / ITEMS_FILE, inputs.spool.shard_documents(shard), version_fields)
            if inputs.fields:
                attributes = inputs.spool.shard_attributes(shard)
                write_attributes(target / ATTRIBUTES_FILE, inputs.fields, attributes)
        if len(rows) and len(exact.queries):
            places, scores = faiss_writer.search_index(index, exact.queries, k, shard_defaults)
            found_rows.append(np.where(places >= 0, rows[places], -1))
            found_scores.append(scores)
    nothing = np.empty((len(exact.queries), 0))
    return _IndexSummary(
        defaults=defaults,
        rows=np.concatenate([nothing.astype(np.int64), *found_rows], axis=1),
        scores=np.concatenate([nothing.astype(np.float32), *found_scores], axis=1),
    )


def _manifest(
    inputs: SnapshotInputs, snapshot_id: str, factory: str, dim: int, defaults: SearchDefaults
) -> snapshot_pb2.Manifest:
    options, spool, info = inputs.options, inputs.spool, inputs.embedder_info
    now_us = time.time_ns() // 1_000
    manifest = snapshot_pb2.Manifest(
        schema_version=SCHEMA_VERSION,
        snapshot_id=snapshot_id,
        collection=options.collection,
        nearline_version=version("nearline"),
        faiss_version=faiss_writer.FAISS_VERSION,
        sources=(
            [source.message(source.import_time_us(now_us)) for source in inputs.sources]
            if inputs.lineage is None
            else inputs.lineage.sources(inputs.sources)
        ),
        dim=dim,
        metric=options.index.metric,
        index_factory=factory,
        default_ef_search=defaults.ef_search,
        default_nprobe=defaults.nprobe,
        shards=[
            snapshot_pb2.ShardEntry(
                shard=shard,
                partitions=partitions_of(shard, options.shards),
                documents=documents,
                chunks=chunks,
            )
            for shard, (documents, chunks) in enumerate(spool.shard_sizes())
        ],
        documents=spool.documents,
        chunks=spool.chunks,
        max_chunks_per_document=spool.max_chunks,
        attributes=inputs.fields,
    )
    if inputs.lineage is not None:
        _add_lineage(inputs.lineage, manifest)
    if info is not None:
        manifest.embedder.model = info.model
        manifest.embedder.fingerprint = info.fingerprint
        manifest.embedder.backend = info.backend
        manifest.chunking.max_tokens = options.chunks.max_tokens
        manifest.chunking.overlap_sentences = options.chunks.overlap_sentences
    return manifest


def _add_lineage(lineage: Lineage, manifest: snapshot_pb2.Manifest) -> None:
    if lineage.parent is not None:
        manifest.parent_snapshot_id = lineage.parent.snapshot_id
    if lineage.watermark is not None:
        manifest.change_log_id = lineage.watermark.log_id
        manifest.watermark = lineage.watermark.encode()


def _inherit(inputs: SnapshotInputs, manifest: snapshot_pb2.Manifest, folder: Path) -> None:
    """Inherits values learned from judgements and labels, which suit a slightly changed
    collection, too.
    """
    before = inputs.inherited
    if before is None:
        return
    if before.HasField("fusion") and manifest.HasField("fusion"):
        manifest.fusion.dense_weight = before.fusion.dense_weight
        manifest.fusion.origin = before.fusion.origin
        manifest.quality.tuning_queries = before.quality.tuning_queries
        manifest.quality.tuning_ndcg_at_10 = before.quality.tuning_ndcg_at_10
    if before.HasField("answers"):
        manifest.answers.CopyFrom(before.answers)
    lineage = inputs.lineage
    if before.HasField("reranker") and lineage is not None:
        lineage.store.fetch(before.collection, before.snapshot_id, [RERANKER_FILE])
        parent = lineage.store.snapshot_folder(before.collection, before.snapshot_id)
        with store_errors(folder):
            write_durably(folder / RERANKER_FILE, (parent / RERANKER_FILE).read_bytes())
        manifest.reranker.CopyFrom(before.reranker)
