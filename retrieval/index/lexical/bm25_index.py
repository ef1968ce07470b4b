"""BM25 over the chunks of one shard: a memory-mapped index of precomputed scores.

`index_builder.indexes.lexical_writer` writes it; the formula of the scores is there.

Folder <snapshot>/shards/<nnn>/lexical/ contains a sparse matrix by columns. A column is a word; a
row is a chunk, numbered as in the vector index.
    starts.npy (words + 1,) int64: column w is entries starts[w]..starts[w + 1] - 1 of the others.
    rows.npy (postings,) int32, ascending within a column.
    scores.npy (postings,) float32: the contribution of the word to the score of the row, > 0.
Scores use the statistics of the whole collection, so the number of shards does not affect them, to
the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from retrieval.index.lexical.vocabulary import FOLDER, Vocabulary

STARTS, ROWS, SCORES = "starts.npy", "rows.npy", "scores.npy"
# Lucene's defaults; docs/adr/0008-lexical-unit.md compares different values.
K1, B = 1.2, 0.75

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Column = tuple[NDArray[np.int32], NDArray[np.float32]]


class LexicalIndex:
    """The word index of one shard; may be searched from several threads.

    Each thread needs 4 bytes per row. A search takes time only for the postings of its words, not
    for all rows.

    Args:
        vocabulary: Vocabulary of the snapshot.
        rows: Number of chunks in the shard.
        starts, indices, scores: See the module.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        rows: int,
        starts: NDArray[np.int64],
        indices: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> None:
        self._vocabulary = vocabulary
        self._rows = rows
        self._starts = starts
        self._indices = indices
        self._scores = scores
        self._threads = threading.local()

    @classmethod
    def load(cls, folder: Path, vocabulary: Vocabulary, rows: int) -> LexicalIndex:
        """Maps the index of a shard.

        Args:
            folder: Folder of the shard.
            vocabulary: Vocabulary of the snapshot.
            rows: Number of chunks in the shard.
        Raises: SnapshotCorrupt: a file is missing, invalid, or inconsistent with the others.
        """
        path = folder / FOLDER
        starts = _map(path / STARTS, np.dtype(np.int64))
        indices = _map(path / ROWS, np.dtype(np.int32))
        scores = _map(path / SCORES, np.dtype(np.float32))
        lengths = (len(starts), len(indices), len(scores))
        postings = int(starts[-1]) if len(starts) else -1
        if lengths != (len(vocabulary) + 1, postings, postings):
            raise SnapshotCorrupt(
                f"{path} has arrays of lengths {lengths}, but {len(vocabulary):,} words and "
                f"{postings:,} postings need {(len(vocabulary) + 1, postings, postings)}; rebuild "
                "the snapshot"
            )
        return cls(vocabulary, rows, starts, indices, scores)

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns the best rows by BM25.

        Args:
            text: The query; repeated words count repeatedly.
            k: Number of rows, >= 1.
            allow: (rows,) bool, the rows to search; None means all.
        Returns: (n,) int64 rows and (n,) float32 scores > 0, n <= k, ordered by (score descending,
            row ascending): only rows that contain a word of the query.
        """
        total = self._thread_totals()
        scored: list[NDArray[np.int32]] = []
        try:
            for rows, scores in self._columns(text):
                # Every contribution is > 0, so a row with total 0 has not been scored before.
                before = total[rows]
                scored.append(rows[before == 0])
                total[rows] = before + scores
            found = np.concatenate(scored) if scored else np.empty(0, np.int32)
            allowed = found if allow is None else found[allow[found]]
            return _best(allowed, total[allowed], k)
        finally:
            for rows in scored:
                total[rows] = 0

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 scores of rows.

        Args:
            text: The query.
            rows: (n,) rows of the shard, in any order.
        Returns: (n,) float32, bit-identical to `search`; 0 for rows without a word of the query.
        """
        return sum_scores(self._columns(text), rows)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the distinct words of a text; see `Vocabulary.terms`."""
        return self._vocabulary.terms(text)

    def close(self) -> None:
        """Drops the references to the files; no search may be running."""
        self._starts = np.zeros(len(self._vocabulary) + 1, np.int64)
        self._indices = np.empty(0, np.int32)
        self._scores = np.empty(0, np.float32)

    def _columns(self, text: str) -> Iterator[_Column]:
        """Yields rows and scores for each word of a text that occurs in the shard, in order."""
        for word in self._vocabulary.numbers(text):
            start, stop = self._starts[word], self._starts[word + 1]
            if start < stop:
                yield self._indices[start:stop], self._scores[start:stop]

    def _thread_totals(self) -> NDArray[np.float32]:
        """Returns the (rows,) zeros of this thread."""
        try:
            totals: NDArray[np.float32] = self._threads.totals
        except AttributeError:
            totals = self._threads.totals = np.zeros(self._rows, np.float32)
        return totals


def sum_scores(columns: Iterable[_Column], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Adds up the scores of rows, word by word: (n,) float32; 0 for rows without a word.

    Args:
        columns: For each word, rows in ascending order and scores.
        rows: (n,) in any order.
    """
    total = np.zeros(len(rows), np.float32)
    # The dtype of the columns: otherwise numpy would convert each whole column.
    wanted = rows.astype(np.int32)
    for column, scores in columns:
        places = np.searchsorted(column, wanted)
        places[places == len(column)] = 0
        total += np.where(column[places] == wanted, scores[places], np.float32(0))
    return total


def _best(
    rows: NDArray[np.int32], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the k best by (score descending, row ascending)."""
    if len(rows) > k:
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= edge  # Includes all ties at the edge, of which the lowest rows are needed.
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order].astype(np.int64), scores[order]


def _map(path: Path, dtype: np.dtype[_Scalar]) -> NDArray[_Scalar]:
    try:
        array: NDArray[_Scalar] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SnapshotCorrupt(
            f"{path} is not a valid array ({error}); rebuild the snapshot"
        ) from error
    if array.ndim != 1 or array.dtype != dtype:
        raise SnapshotCorrupt(
            f"{path} has shape {array.shape} and type {array.dtype}, not one dimension of {dtype}; "
            "rebuild the snapshot"
        )
    # A plain array: slicing a memmap runs Python code.
    return np.asarray(array)
