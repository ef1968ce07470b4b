"""Writes the snapshot of a new collection: it has no document yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

import nearline
from nearline.items.search_languages import other_languages
from nearline.store.durable import store_errors
from nearline.store.manifest_files import list_files
from nearline.store.publication import publish, temporary_snapshot
from nearline.store.snapshot import (
    SCHEMA_VERSION,
    Store,
    partitions_of,
    shard_folder,
)
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.attribute_table import ATTRIBUTES_FILE, attributes_schema
from retrieval.index.item_table import ITEMS_FILE, ITEMS_SCHEMA
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.bm25_index import K1, ROWS, SCORES, STARTS, B
from retrieval.index.lexical.synonyms import write_synonyms
from retrieval.index.lexical.title_index import (
    TITLE_KEYS,
    TITLE_ROWS,
    TITLE_STARTS,
    TITLE_WORDS,
)
from retrieval.index.lexical.vocabulary import FILE, FOLDER, vocabulary_schema
from retrieval.index.lexical.word_forms import write_forms
from retrieval.index.vectors.empty_index import write_empty_index
from retrieval.index.vectors.vector_index import INDEX_FILE
from retrieval.router.new_collection import CollectionShape
from retrieval.search.fusion import CANDIDATES, DEFAULT_DENSE_WEIGHT, NORMALISATION

# Words of a chunk on average, until the first compaction counts them.
_MEAN_LENGTH = 100.0


def publish_empty_snapshot(store: Store, collection: str, shape: CollectionShape) -> str:
    """Publishes a snapshot without documents; blocks.

    Live documents are scored by its statistics: every word counts the same until the first
    compaction.

    Returns: The id of the snapshot, which no alias names yet.
    Raises: InvalidRequest: an unknown language. StoreError: no space, no permission.
    """
    snapshot_id = new_snapshot_id()
    with temporary_snapshot(store, collection, snapshot_id) as folder:
        with store_errors(folder):
            manifest = _write_files(folder, collection, snapshot_id, shape)
        publish(store, folder, manifest)
    return snapshot_id


def _write_files(
    folder: Path, collection: str, snapshot_id: str, shape: CollectionShape
) -> snapshot_pb2.Manifest:
    analyser = analyser_of(shape.language)
    (folder / FOLDER).mkdir()
    others = other_languages(shape.search_languages, shape.language)
    schema = vocabulary_schema(analyser, {}, [(analyser_of(other), {}) for other in others])
    _write_table(folder / FOLDER / FILE, schema)
    write_forms(folder / FOLDER, [], [])
    for other in others:
        (folder / FOLDER / other).mkdir()
        write_forms(folder / FOLDER / other, [], [])
    write_synonyms(folder / FOLDER, shape.synonyms, 0)
    faiss_version = ""
    for shard in range(shape.shards):
        target = shard_folder(folder, shard)
        (target / FOLDER).mkdir(parents=True)
        faiss_version = write_empty_index(target / INDEX_FILE, shape.dim)
        _write_table(target / ITEMS_FILE, ITEMS_SCHEMA)
        if shape.fields:
            _write_table(target / ATTRIBUTES_FILE, attributes_schema(shape.fields))
        for name in (STARTS, TITLE_STARTS):
            np.save(target / FOLDER / name, np.zeros(1, np.int64))
        for name, kind in (
            (ROWS, np.int32),
            (SCORES, np.float32),
            (TITLE_ROWS, np.int32),
            (TITLE_WORDS, np.uint16),
            (TITLE_KEYS, np.uint64),
        ):
            np.save(target / FOLDER / name, np.empty(0, kind))
    manifest = snapshot_pb2.Manifest(
        schema_version=SCHEMA_VERSION,
        snapshot_id=snapshot_id,
        collection=collection,
        nearline_version=nearline.__version__,
        faiss_version=faiss_version,
        dim=shape.dim,
        metric=shape.metric,
        index_factory="Flat",
        shards=[
            snapshot_pb2.ShardEntry(shard=shard, partitions=partitions_of(shard, shape.shards))
            for shard in range(shape.shards)
        ],
        attributes=shape.fields,
        lexical=snapshot_pb2.LexicalCard(
            language=shape.language,
            k1=K1,
            b=B,
            mean_length=_MEAN_LENGTH,
            weights=shape.search_weights,
            languages=shape.search_languages,
            synonym_rules=len(shape.synonyms),
        ),
        fusion=snapshot_pb2.Fusion(
            dense_weight=DEFAULT_DENSE_WEIGHT,
            normalisation=NORMALISATION,
            candidates=CANDIDATES,
            origin="default",
        ),
        files=list_files(folder),
    )
    if shape.embedder is not None:
        manifest.embedder.model = shape.embedder.model
        manifest.embedder.fingerprint = shape.embedder.fingerprint
        manifest.embedder.backend = shape.embedder.backend
        manifest.chunking.max_tokens = shape.chunk_tokens
        manifest.chunking.overlap_sentences = shape.overlap_sentences
    manifest.create_time.GetCurrentTime()
    return manifest


def _write_table(path: Path, schema: pa.Schema) -> None:
    """Writes a table without rows."""
    with path.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        writer.write_table(schema.empty_table())
