"""A snapshot as rows for Milvus: its files are mapped, and one document is read at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nearline.errors import SnapshotCorrupt
from nearline.snapshot import KIND_NAMES, Store, shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.index.item_table import ItemTable
from retrieval.index.lexical import vocabulary
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.vectors import faiss_index
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.milvus.rows import assign_partitions, make_rows
from retrieval.snapshots import golden_queries
from retrieval.snapshots.golden_queries import GoldenQueries

_ITEMS, _INDEX = "items.arrow", "dense.faiss"
# Vectors are read for so many documents at once.
_BLOCK_DOCUMENTS = 256


class SnapshotSource:
    """The documents of a snapshot; blocks while its files are fetched.

    Args:
        store: The store.
        manifest: Of the snapshot.
        words: Whether rows have the words of their chunks.
        partition_by: Attribute that the collection is cut up by; empty: it is not.
    Raises: SnapshotCorrupt: a file is not what the manifest says. SnapshotMismatch: another
        version of faiss, or of the analysis of texts, wrote it.
    """

    def __init__(
        self,
        store: Store,
        manifest: snapshot_pb2.Manifest,
        *,
        words: bool,
        partition_by: str = "",
    ) -> None:
        self._partition_by = partition_by
        faiss_index.check_version(manifest.faiss_version)
        prefixes = [
            f"shards/{entry.shard:03d}/{name}"
            for entry in manifest.shards
            for name in (_ITEMS, _INDEX)
        ]
        prefixes += [golden_queries.FOLDER, *([vocabulary.FOLDER] if words else [])]
        store.fetch(manifest.collection, manifest.snapshot_id, prefixes)
        folder = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
        self.golden = GoldenQueries.of(folder, manifest)
        self._kinds = {field.name: KIND_NAMES[field.kind] for field in manifest.attributes}
        self._analyser = Vocabulary.load(folder).analyser if words else None
        self._shards = []
        for entry in manifest.shards:
            place = shard_folder(folder, entry.shard)
            items = ItemTable(place / _ITEMS)
            if (items.documents, items.chunks) != (entry.documents, entry.chunks):
                raise SnapshotCorrupt(
                    f"{place / _ITEMS} has {items.documents} documents and {items.chunks} chunks, "
                    f"the manifest says {entry.documents} and {entry.chunks}; rebuild the snapshot"
                )
            index = FaissIndex.load(
                place / _INDEX, manifest.index_factory, dim=manifest.dim, rows=entry.chunks
            )
            self._shards.append((items, index))
        self.expiring = any(len(items.expiries()[0]) > 0 for items, _ in self._shards)

    def documents(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yields the rows of each document, shard by shard in id order.

        Raises: InvalidRequest: Milvus cannot hold a document.
        """
        for items, index in self._shards:
            for first in range(0, items.documents, _BLOCK_DOCUMENTS):
                last = min(first + _BLOCK_DOCUMENTS, items.documents)
                yield from self._rows(items, index, first, last)

    def sample(self, documents: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yields the rows of some documents from all over, at least one of each shard."""
        for items, index in self._shards:
            count = -(-documents // len(self._shards))
            places = np.linspace(0, items.documents - 1, min(count, items.documents))
            for document in places.astype(int).tolist():
                yield from self._rows(items, index, document, document + 1)

    def close(self) -> None:
        """Closes the files."""
        for items, index in self._shards:
            index.close()
            items.close()

    def _rows(
        self, items: ItemTable, index: FaissIndex, first: int, last: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        row = int(items.first_rows[first])
        vectors = index.reconstruct(np.arange(row, items.first_rows[last]))
        for document in range(first, last):
            rows = items.rows_of(document)
            _, starts, stops = items.chunks_of(rows, np.full(len(rows), document))
            made = make_rows(
                items.id(document),
                items.title(document),
                items.text(document),
                items.attributes(document),
                version=items.version(document),
                expires=items.expires(document),
                bounds=np.column_stack((starts, stops)),
                vectors=vectors[rows - row],
                kinds=self._kinds,
                analyser=self._analyser,
            )
            yield assign_partitions(made, self._partition_by)
