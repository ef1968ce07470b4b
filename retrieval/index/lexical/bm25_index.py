"""BM25 over the chunks of one shard: precomputed scores, word by word, memory-mapped.

Folder <snapshot>/shards/<nnn>/lexical/, a sparse matrix in columns (a column is a word, a row is a
chunk, numbered as in the vector index):
    starts.npy (words + 1,) int64: column w is places starts[w]..starts[w + 1] - 1 of the others.
    rows.npy (postings,) int32, ascending within a column.
    scores.npy (postings,) float32: what the word adds to the score of the row, > 0.
The statistics inside the scores are those of the whole collection, so a score does not depend on
the number of shards, to the last bit.
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

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Column = tuple[NDArray[np.int32], NDArray[np.float32]]


class LexicalIndex:
    """The words of one shard; may be searched from several threads.

    Each thread keeps 4 bytes per row. A search costs time for the postings of its words alone: no
    step is taken over all rows.

    Args:
        vocabulary: Of the snapshot.
        rows: Chunks in the shard.
        starts, indices, scores: As the module says.
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
            vocabulary: Of the same snapshot.
            rows: Chunks that the shard has.
        Raises: SnapshotCorrupt: a file is missing, is no such array, or does not fit the others.
        """
        path = folder / FOLDER
        starts = _map(path / STARTS, np.dtype(np.int64))
        indices = _map(path / ROWS, np.dtype(np.int32))
        scores = _map(path / SCORES, np.dtype(np.float32))
        lengths = (len(starts), len(indices), len(scores))
        postings = int(starts[-1]) if len(starts) else -1
        if lengths != (len(vocabulary) + 1, postings, postings):
            raise SnapshotCorrupt(
                f"{path} has arrays of {lengths} numbers, {len(vocabulary):,} words and "
                f"{postings:,} postings need {(len(vocabulary) + 1, postings, postings)}; rebuild "
                "the snapshot"
            )
        return cls(vocabulary, rows, starts, indices, scores)

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the best rows by BM25.

        Args:
            text: The query; a word that it repeats counts as often.
            k: Rows wanted, >= 1.
            allow: (rows,) which rows may be found; None: all.
        Returns: (n,) int64 rows and (n,) float32 scores > 0, n <= k, ordered by (score descending,
            row ascending): only rows that have a word of the query.
        """
        total = self._own_total()
        touched: list[NDArray[np.int32]] = []
        try:
            for rows, scores in self._columns(text):
                # Every part of a score is above 0, so a row at 0 was not met before.
                before = total[rows]
                touched.append(rows[before == 0])
                total[rows] = before + scores
            met = np.concatenate(touched) if touched else np.empty(0, np.int32)
            allowed = met if allow is None else met[allow[met]]
            return _best(allowed, total[allowed], k)
        finally:
            for rows in touched:
                total[rows] = 0

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 score of rows.

        Args:
            text: The query.
            rows: (n,) rows of the shard, in any order.
        Returns: (n,) float32, to the bit what `search` gives; 0 where no word of the query is in
            the row.
        """
        return sum_scores(self._columns(text), rows)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the words of a text; see `Vocabulary.terms`."""
        return self._vocabulary.terms(text)

    def close(self) -> None:
        """Releases the files once nothing refers to them; no search may be running."""
        self._starts = np.zeros(len(self._vocabulary) + 1, np.int64)
        self._indices = np.empty(0, np.int32)
        self._scores = np.empty(0, np.float32)

    def _columns(self, text: str) -> Iterator[_Column]:
        """Yields rows and scores of each word of a text that the shard has, in order."""
        for word in self._vocabulary.numbers(text):
            start, stop = self._starts[word], self._starts[word + 1]
            if start < stop:
                yield self._indices[start:stop], self._scores[start:stop]

    def _own_total(self) -> NDArray[np.float32]:
        """Returns this thread's (rows,) zeros."""
        try:
            own: NDArray[np.float32] = self._threads.total
        except AttributeError:
            own = self._threads.total = np.zeros(self._rows, np.float32)
        return own


def sum_scores(columns: Iterable[_Column], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Adds up the scores of rows, word after word: (n,) float32; 0 where none is in the row.

    Args:
        columns: Rows, ascending, and scores of each word.
        rows: (n,) in any order.
    """
    total = np.zeros(len(rows), np.float32)
    # Of the kind of the columns: else each of them is converted whole.
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
        kept = scores >= edge  # With all ties at the edge: the lowest rows of them are due.
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order].astype(np.int64), scores[order]


def _map(path: Path, dtype: np.dtype[_Scalar]) -> NDArray[_Scalar]:
    try:
        array: NDArray[_Scalar] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SnapshotCorrupt(
            f"{path} is not an array that can be mapped ({error}); rebuild the snapshot"
        ) from error
    if array.ndim != 1 or array.dtype != dtype:
        raise SnapshotCorrupt(
            f"{path} has shape {array.shape} and type {array.dtype}, one row of {dtype} is needed; "
            "rebuild the snapshot"
        )
    # Without the class of mapped arrays, whose every slice runs Python code.
    return np.asarray(array)
