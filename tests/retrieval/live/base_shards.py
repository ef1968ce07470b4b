"""Shards as written by the builder, and changes to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from index_builder.documents.attribute_columns import write_attributes
from nearline.contract import Attributes
from nearline.items.attributes import encode
from nearline.store.snapshot import PARTITIONS, partition_of, shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.index.attributes import snapshot_attributes
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.item_table import ItemTable
from retrieval.index.lexical.bm25_index import LexicalIndex
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.segment import Segment
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.live.delta import LiveDelta
from retrieval.live.progress import LiveView
from retrieval.protocols.shard import ShardOptions, ShardQueries
from retrieval.protocols.watermark import Watermark
from tests.retrieval.small_snapshots import (
    FINGERPRINT,
    Document,
    index_of,
    write_items,
    write_words,
)

DIM = 4
START = Watermark("log")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Field = snapshot_pb2.AttributeField
FIELDS = (
    _Field(name="kind", kind=_Field.KIND_STRING),
    _Field(name="made", kind=_Field.KIND_TIME),
    _Field(name="price", kind=_Field.KIND_DOUBLE),
    _Field(name="sold", kind=_Field.KIND_BOOL),
    _Field(name="tags", kind=_Field.KIND_STRING, is_list=True),
    _Field(name="year", kind=_Field.KIND_INT),
)
# Score, document, chunk.
Hit = tuple[float, str, int]


class Base(NamedTuple):
    """A shard of a snapshot, and everything that a delta needs."""

    part: Segment
    manifest: snapshot_pb2.Manifest
    vocabulary: Vocabulary | None

    def delta(self, start: Watermark = START) -> LiveDelta:
        return LiveDelta(self.part, self.manifest, self.vocabulary, 0, start)


def base_of(
    folder: Path, documents: Sequence[Document], *, dim: int = DIM, factory: str = "Flat"
) -> Base:
    """Builds the one shard of a snapshot of documents."""
    ordered = sorted(documents, key=lambda document: document.id)
    place = shard_folder(folder / "snapshot", 0)
    place.mkdir(parents=True)
    write_items(place / "items.arrow", ordered)
    attributes = place / "attributes.arrow"
    write_attributes(attributes, FIELDS, (encode(_clean(one.attributes)) for one in ordered))
    card = write_words(folder / "snapshot", ordered, 1, "english")
    vocabulary = None if card is None else Vocabulary.load(folder / "snapshot")
    items = ItemTable(place / "items.arrow")
    index = FaissIndex(index_of(factory, dim, ordered))
    table = AttributeTable.load(attributes, FIELDS, items.documents)
    words = None
    if vocabulary is not None:
        words = LexicalIndex.load(place, vocabulary, items.chunks)
    part = Segment(index, items, snapshot_attributes(table, items, index), words, unit_length=False)
    manifest = snapshot_pb2.Manifest(
        dim=dim,
        metric="inner_product",
        embedder=snapshot_pb2.EmbedderCard(fingerprint=FINGERPRINT),
        attributes=FIELDS,
        lexical=card,
    )
    return Base(part, manifest, vocabulary)


def _clean(attributes: dict[str, object]) -> Attributes:
    cleaned: Attributes = attributes  # type: ignore[assignment]
    return cleaned


class Log:
    """Numbers changes as a log does."""

    def __init__(self) -> None:
        self.heads = [0] * PARTITIONS

    def entry(self, change: Change) -> ChangeEntry:
        partition = partition_of(change.document_id)
        self.heads[partition] += 1
        position = self.heads[partition]
        return ChangeEntry(partition, position, 1_000 + sum(self.heads), change)

    def upsert(self, document: Document) -> ChangeEntry:
        expires = None if document.expires is None else EPOCH + timedelta(0, 0, document.expires)
        return self.entry(
            Change(
                document_id=document.id,
                kind=ChangeKind.UPSERT,
                title=document.title,
                text=document.text,
                attributes=_clean(document.attributes),
                bounds=np.array(document.spans(), np.int64).reshape(-1, 2),
                vectors={FINGERPRINT: document.vectors},
                expires=expires,
            )
        )

    def delete(self, document_id: str) -> ChangeEntry:
        return self.entry(Change(document_id=document_id, kind=ChangeKind.DELETE))

    def attributes(
        self, document_id: str, changes: Attributes, expires: int | None = None
    ) -> ChangeEntry:
        return self.entry(
            Change(
                document_id=document_id,
                kind=ChangeKind.ATTRIBUTES,
                attributes=changes,
                expires=None if expires is None else EPOCH + timedelta(0, 0, expires),
            )
        )


def hits(
    base: Segment, view: LiveView, queries: ShardQueries, options: ShardOptions
) -> list[list[Hit]]:
    """Searches both segments and merges the hits of each query."""
    parts = [base.search(queries, options, view.alive)]
    if view.part is not None:
        parts.append(view.part.search(queries, options, view.part_alive))
    merged: list[list[Hit]] = []
    for found in zip(*parts, strict=True):
        rows = [row for one in found for row in zip(one.scores, one.ids, one.chunks, strict=True)]
        merged.append(sorted(rows, key=lambda row: (-row[0], *row[1:]))[: options.k])
    return merged


def exact_scores(query: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns inner products, (n,), rounded as a Flat index rounds them."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    scores, ids = index.search(query[None], len(vectors))
    by_row: NDArray[np.float32] = np.empty(len(vectors), np.float32)
    by_row[ids[0]] = scores[0]
    return by_row
