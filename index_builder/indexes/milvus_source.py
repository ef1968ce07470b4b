"""The rows of a snapshot for Milvus, read from mapped files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from index_builder.lineage.snapshot_shards import SnapshotShard, open_shards
from nearline.store.snapshot import KIND_NAMES, Store
from nearline.v1 import snapshot_pb2
from retrieval.index.lexical import vocabulary
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.milvus.rows import make_rows
from retrieval.snapshots import golden_queries
from retrieval.snapshots.golden_queries import GoldenQueries

# Number of documents whose vectors are read at once.
_BLOCK_DOCUMENTS = 256


class SnapshotSource:
    """The documents of a snapshot; blocks while files are fetched.

    Args:
        store: The store.
        manifest: Manifest of the snapshot.
        words: Whether rows contain the words of their chunks.
    Raises: SnapshotCorrupt: a file differs from the manifest. SnapshotMismatch: the snapshot was
        written by another version of FAISS or of the text analysis.
    """

    def __init__(self, store: Store, manifest: snapshot_pb2.Manifest, *, words: bool) -> None:
        more_files = [golden_queries.FOLDER, *([vocabulary.FOLDER] if words else [])]
        self._shards = open_shards(store, manifest, with_index=True, more_files=more_files)
        folder = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
        self.golden = GoldenQueries.read(folder, manifest)
        self._kinds = {field.name: KIND_NAMES[field.kind] for field in manifest.attributes}
        self._analyser = Vocabulary.load(folder).analyser if words else None
        self.expiring = any(len(shard.items.expiries()[0]) > 0 for shard in self._shards)

    def documents(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yields the rows of each document, shard by shard in id order.

        Raises: InvalidRequest: Milvus cannot hold a document.
        """
        for shard in self._shards:
            for first in range(0, shard.items.documents, _BLOCK_DOCUMENTS):
                last = min(first + _BLOCK_DOCUMENTS, shard.items.documents)
                yield from self._rows(shard, first, last)

    def sample(self, documents: int) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yields the rows of evenly spaced documents, at least one per shard."""
        per_shard = -(-documents // len(self._shards))
        for shard in self._shards:
            count = shard.items.documents
            sampled = np.linspace(0, count - 1, min(per_shard, count))
            for document in sampled.astype(int).tolist():
                yield from self._rows(shard, document, document + 1)

    def close(self) -> None:
        """Closes the files."""
        for shard in self._shards:
            shard.close()

    def _rows(
        self, shard: SnapshotShard, first: int, last: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        items, index = shard.items, shard.index
        assert index is not None, "opened with vectors"
        row = int(items.first_rows[first])
        vectors = index.reconstruct(np.arange(row, items.first_rows[last]))
        for document in range(first, last):
            rows = items.rows_of(document)
            _, starts, stops = items.chunks_of(rows, np.full(len(rows), document))
            yield make_rows(
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
