"""The words of live documents, scored by BM25 with the frozen statistics of the snapshot:

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 (1 - b + b l / L))
N, n, k1, b and L are those of the snapshot, so a live document scores bit-identically to the same
document in the snapshot, and their hits can be merged. For unknown words, n = 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nearline.v1 import snapshot_pb2
from retrieval.index.best_rows import NamesOf, rank_rows
from retrieval.index.lexical.bm25_index import sum_scores
from retrieval.index.lexical.vocabulary import Vocabulary

# Beyond every row: marks the unused end of a column.
_NO_ROW = np.iinfo(np.int32).max
# A hybrid search analyses the same text twice, and queries of a batch may have the same text.
_CACHED_TEXTS = 256


class _Postings:
    """The rows that contain a word, ascending, and its contribution to their scores; one writer.

    columns: Rows and scores; the unused end contains `_NO_ROW`, so that readers find the end
    without a lock.
    """

    __slots__ = ("_count", "columns", "idf")

    def __init__(self, idf: float) -> None:
        self.idf = idf
        self.columns = np.full(2, _NO_ROW, np.int32), np.empty(2, np.float32)
        self._count = 0

    def add(self, row: int, score: float) -> None:
        rows, scores = self.columns
        if self._count == len(rows):
            rows = np.concatenate((rows, np.full(len(rows), _NO_ROW, np.int32)))
            scores = np.concatenate((scores, np.empty(len(scores), np.float32)))
            self.columns = rows, scores
        scores[self._count] = score
        rows[self._count] = row
        self._count += 1


class LiveWords:
    """The words of live rows; one writer.

    Args:
        card: Lexical statistics of the snapshot.
        vocabulary: Words of the snapshot.
    """

    def __init__(self, card: snapshot_pb2.LexicalCard, vocabulary: Vocabulary) -> None:
        self._card = card
        self._k1, self._b, self._mean_length = card.k1, card.b, card.mean_length
        self.vocabulary = vocabulary
        self.postings: dict[str, _Postings] = {}
        self.words_of = lru_cache(_CACHED_TEXTS)(vocabulary.words)

    def add(self, row: int, text: str) -> None:
        """Adds a row; rows must be added in order.

        Args:
            row: Row number.
            text: Title and text of the chunk, as indexed in snapshots.
        """
        words = self.vocabulary.words(text)
        norm = self._k1 * (1 - self._b + self._b * len(words) / self._mean_length)
        for word, count in Counter(words).items():
            postings = self.postings.get(word)
            if postings is None:
                postings = self.postings[word] = _Postings(self._idf(word))
            postings.add(row, postings.idf * (count / (count + norm)))

    def view(self, rows: int, names_of: NamesOf) -> WordsView:
        """Returns a view of the first rows.

        Args:
            names_of: Returns the document ids of rows.
        """
        return WordsView(self, rows, names_of)

    def _idf(self, word: str) -> float:
        number = self.vocabulary.number(word)
        found_in = float(self.vocabulary.chunks[number]) if number >= 0 else 0.0
        # Uses numpy like the builder: the logarithm of the C library may differ in the last bit.
        return float(np.log(1 + (self._card.chunks - found_in + 0.5) / (found_in + 0.5)))


class WordsView:
    """A view of `LiveWords`; equal scores are ordered by document id, then by row.

    Args:
        store: The words; it may continue to grow.
        rows: Number of rows in the view.
        names_of: Returns the document ids of rows.
    """

    def __init__(self, store: LiveWords, rows: int, names_of: NamesOf) -> None:
        self._store = store
        self._rows = rows
        self._names_of = names_of

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns the best rows by BM25 and their scores > 0; see `LexicalIndex.search`."""
        total = np.zeros(self._rows, np.float32)
        for rows, scores in self._columns(text):
            total[rows] += scores
        found = np.flatnonzero(total)
        if allow is not None:
            found = found[allow[found]]
        return rank_rows(found, total[found], k, self._names_of)

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 scores of rows, bit-identical to `search`; 0 without a common word."""
        return sum_scores(self._columns(text), rows)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the distinct words of a text, each with its number of chunks in the snapshot."""
        return self._store.vocabulary.terms(text)

    def _columns(self, text: str) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """Yields rows and scores for each word of a text that occurs in a row, in order."""
        for word in self._store.words_of(text):
            postings = self._store.postings.get(word)
            if postings is None:
                continue
            rows, scores = postings.columns
            stop = rows.searchsorted(np.int32(self._rows))
            if stop:
                yield rows[:stop], scores[:stop]
