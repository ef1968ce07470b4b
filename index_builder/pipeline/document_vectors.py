"""One content vector per document of a snapshot: the mean of its chunks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.spool import Spool
from retrieval.behaviour.spilled_array import SpilledArray

# Documents whose chunks are in memory at once: 50 MB at 384 dimensions and two chunks each.
_BLOCK = 1 << 14


class DocumentRows(NamedTuple):
    """Documents in order of their ids, with the rows of their chunks.

    ids: Ascending.
    chunk_rows: (chunks,) int64, document after document.
    firsts: (documents,) int64, index in chunk_rows of each document's first chunk; every document
        has at least one.
    """

    ids: list[str]
    chunk_rows: NDArray[np.int64]
    firsts: NDArray[np.int64]

    def vectors(self, chunk_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the mean of each document's chunks at unit length: (documents, d) float32.

        Args:
            chunk_vectors: (chunks, d), by row.
        """
        vectors = SpilledArray(np.float32)
        for start in range(0, len(self.ids), _BLOCK):
            firsts = self.firsts[start : start + _BLOCK + 1]
            stop = firsts[_BLOCK] if len(firsts) > _BLOCK else len(self.chunk_rows)
            firsts = firsts[:_BLOCK]
            chunks = chunk_vectors[self.chunk_rows[firsts[0] : stop]]
            sums = np.add.reduceat(chunks, firsts - firsts[0], axis=0)
            length = np.linalg.norm(sums, axis=1, keepdims=True)
            vectors.add((sums / np.where(length > 0, length, 1)).ravel())
        return vectors.array().reshape(len(self.ids), chunk_vectors.shape[1])


def read_document_rows(spool: Spool, shards: int) -> DocumentRows:
    """Reads the ids of the documents of all shards, and the rows of their chunks."""
    ids: list[str] = []
    rows = [np.empty(0, np.int64)]
    counts: list[int] = []
    for shard in range(shards):
        rows.append(spool.shard_chunk_rows(shard))
        for document in spool.shard_documents(shard):
            ids.append(document.id)
            counts.append(len(document.bounds))
    of_shards = np.concatenate(rows)
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    chunks = np.array(counts, np.int64)
    before = (np.cumsum(chunks) - chunks)[order]
    firsts = np.cumsum(chunks[order]) - chunks[order]
    # A document's chunks are consecutive within its shard.
    places = np.arange(len(of_shards)) + np.repeat(before - firsts, chunks[order])
    return DocumentRows([ids[one] for one in order.tolist()], of_shards[places], firsts)
