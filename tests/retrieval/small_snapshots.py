"""Small snapshots for tests, written without the builder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_builder.documents.attribute_columns import write_attributes
from index_builder.documents.records import PreparedDocument, SourceLocation
from index_builder.documents.spool import Spool
from index_builder.indexes.lexical_writer import write_lexical
from nearline.contract import Item
from nearline.store.durable import sha256_of
from nearline.store.json_records import message_to_json
from nearline.store.snapshot import (
    MANIFEST,
    PARTITIONS,
    Store,
    shard_folder,
    shard_of,
)
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.v1 import release_pb2, snapshot_pb2

FINGERPRINT = "f32~0.999:0123456789abcdef"
# Lets a snapshot go live that no gate has judged.
FORCED = release_pb2.GateVerdict(forced_because="a test")


@dataclass(slots=True, kw_only=True)
class Document:
    """A document of a test. vectors: (chunks, d) float32. expires: Microseconds since 1970."""

    id: str
    vectors: NDArray[np.float32]
    title: str = ""
    text: str = ""
    bounds: Sequence[tuple[int, int]] = ()
    attributes: dict[str, object] = field(default_factory=dict)
    version: int = 0
    expires: int | None = None

    def spans(self) -> Sequence[tuple[int, int]]:
        return self.bounds or [(10 * n, 10 * n + 10) for n in range(len(self.vectors))]


def documents_of(matrix: NDArray[np.float32], chunks: int = 1) -> list[Document]:
    """Makes documents of `chunks` rows each: d0000, d0001, …"""
    return [
        Document(id=f"d{number:05d}", vectors=matrix[at : at + chunks], text="x" * 10 * chunks)
        for number, at in enumerate(range(0, len(matrix), chunks))
    ]


def write_snapshot(
    root: Path,
    documents: Sequence[Document],
    *,
    collection: str = "default",
    shards: int = 1,
    factory: str = "Flat",
    metric: str = "inner_product",
    ef_search: int = 64,
    fingerprint: str = FINGERPRINT,
    golden: NDArray[np.float32] | None = None,
    promised_recall: float = 1.0,
    faiss_version: str = faiss.__version__,
    batch_documents: int = 4_096,
    promote: bool = True,
    fields: Sequence[snapshot_pb2.AttributeField] = (),
    language: str = "",
) -> str:
    """Writes and publishes a snapshot; gives its id.

    With fields it has attributes that can be filtered on, with a language its words are indexed.
    """
    store = Store(root)
    snapshot_id = new_snapshot_id()
    folder = store.snapshots_folder(collection) / snapshot_id
    dim = documents[0].vectors.shape[1]
    ordered = sorted(documents, key=lambda document: document.id)
    entries = []
    for shard in range(shards):
        mine = [d for d in ordered if shard_of(d.id, shards) == shard]
        place = shard_folder(folder, shard)
        place.mkdir(parents=True)
        index = index_of(factory, dim, mine)
        faiss.write_index(index, str(place / "dense.faiss"))
        write_items(place / "items.arrow", mine, batch_documents)
        if fields:
            texts = (json.dumps(document.attributes) for document in mine)
            write_attributes(place / "attributes.arrow", fields, texts)
        entries.append(
            snapshot_pb2.ShardEntry(
                shard=shard,
                partitions=[p for p in range(PARTITIONS) if p * shards // PARTITIONS == shard],
                documents=len(mine),
                chunks=index.ntotal,
            )
        )
    lexical = write_words(folder, ordered, shards, language) if language else None
    queries = 0
    if golden is not None:
        queries = len(golden)
        _write_golden(folder / "golden", ordered, golden)
    manifest = snapshot_pb2.Manifest(
        schema_version=1,
        snapshot_id=snapshot_id,
        collection=collection,
        faiss_version=faiss_version,
        embedder=snapshot_pb2.EmbedderCard(model="test", fingerprint=fingerprint)
        if fingerprint
        else None,
        dim=dim,
        metric=metric,
        index_factory=factory,
        default_ef_search=ef_search if "HNSW" in factory else 0,
        default_nprobe=4 if "IVF" in factory else 0,
        shards=entries,
        attributes=fields,
        lexical=lexical,
        documents=len(documents),
        chunks=sum(len(document.vectors) for document in documents),
        max_chunks_per_document=max(len(document.vectors) for document in documents),
        quality=snapshot_pb2.QualitySummary(queries=queries, recall_at_10=promised_recall),
        files=[
            snapshot_pb2.FileEntry(
                path=path.relative_to(folder).as_posix(),
                bytes=path.stat().st_size,
                sha256=sha256_of(path),
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ],
    )
    (folder / MANIFEST).write_text(message_to_json(manifest))
    if not promote:
        return snapshot_id
    epoch = 1 + max((record.epoch for record in store.alias_records(collection)), default=0)
    store.create_alias_record(
        collection, snapshot_pb2.AliasRecord(epoch=epoch, current=snapshot_id, who="test")
    )
    return snapshot_id


def index_of(factory: str, dim: int, documents: Sequence[Document]) -> faiss.Index:
    """Makes an index of all their vectors, in order."""
    index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if documents:
        vectors = np.concatenate([document.vectors for document in documents])
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
    return index


def write_items(path: Path, documents: Sequence[Document], batch: int = 4_096) -> None:
    """Writes items.arrow; with the columns of live changes only where a document has seen any."""
    fields = [
        ("id", pa.string()),
        ("title", pa.large_string()),
        ("text", pa.large_string()),
        ("chunk_starts", pa.list_(pa.int64())),
        ("chunk_ends", pa.list_(pa.int64())),
        ("attributes", pa.string()),
        ("version", pa.int64()),
        ("expires", pa.int64()),
    ]
    changed = any(document.version or document.expires is not None for document in documents)
    schema = pa.schema(fields if changed else fields[:-2])
    with pa.ipc.new_file(str(path), schema) as writer:
        for at in range(0, len(documents), batch):
            part = documents[at : at + batch]
            columns = [
                [document.id for document in part],
                [document.title for document in part],
                [document.text for document in part],
                [[start for start, _ in document.spans()] for document in part],
                [[end for _, end in document.spans()] for document in part],
                [json.dumps(document.attributes) for document in part],
                [document.version for document in part],
                [document.expires for document in part],
            ]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=False)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def write_words(
    folder: Path, documents: Sequence[Document], shards: int, language: str
) -> snapshot_pb2.LexicalCard | None:
    """Writes the words of a snapshot's documents, in order of their ids; None: there are none."""
    with TemporaryDirectory() as apart:
        spool = Spool(Path(apart), shards)
        spool.begin()
        for number, one in enumerate(documents):
            item = Item(id=one.id, title=one.title, text=one.text)
            spool.add(PreparedDocument(SourceLocation("test", number), item, one.spans()))
        spool.finish()
        card = write_lexical(spool, shards, language, folder)
        spool.close()
        return card


def _write_golden(
    folder: Path, documents: Sequence[Document], queries: NDArray[np.float32]
) -> None:
    folder.mkdir()
    vectors = np.concatenate([document.vectors for document in documents])
    ids = [document.id for document in documents for _ in document.vectors]
    exact = queries @ vectors.T
    best = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    flat = pa.array(np.ascontiguousarray(queries).reshape(-1), pa.float32())
    table = pa.table(
        {
            "vector": pa.FixedSizeListArray.from_arrays(flat, queries.shape[1]),
            "ids": pa.array([[ids[row] for row in rows] for rows in best]),
            "scores": pa.array(
                list(np.take_along_axis(exact, best, axis=1)), pa.list_(pa.float32())
            ),
        }
    )
    with pa.ipc.new_file(str(folder / "queries.arrow"), table.schema) as writer:
        writer.write_table(table)
