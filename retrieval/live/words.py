"""The words of live documents, scored as the snapshot would: BM25 with its frozen statistics.

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 (1 - b + b l / L))
N, n, k1, b and L are those of the snapshot, so a document scores the same to the bit in it and
beside it, and live scores may stand among those of the snapshot. A word that the snapshot does not
know is in n = 0 of its chunks.
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

# Beyond every row: where a column has nothing yet.
_NO_ROW = np.iinfo(np.int32).max
# A hybrid search asks for the same text twice, and several queries of a batch may share one.
_TEXTS_KEPT = 256


class _Postings:
    """The rows that have a word, ascending, and what the word adds to their scores; one writer.

    columns: Rows and scores, side by side; the unused end has rows beyond every row, so that a
    reader finds the end of what it may see by itself.
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
    """Words of the rows; one writer.

    Args:
        card: Statistics of the snapshot.
        vocabulary: Words of the snapshot.
    """

    def __init__(self, card: snapshot_pb2.LexicalCard, vocabulary: Vocabulary) -> None:
        self._card = card
        self._k1, self._b, self._mean_length = card.k1, card.b, card.mean_length
        self.vocabulary = vocabulary
        self.postings: dict[str, _Postings] = {}
        self.asked = lru_cache(_TEXTS_KEPT)(vocabulary.words)

    def add(self, row: int, text: str) -> None:
        """Adds a row; rows are added in order.

        Args:
            text: Title and text of the chunk, as the snapshot indexes them.
        """
        words = self.vocabulary.words(text)
        norm = self._k1 * (1 - self._b + self._b * len(words) / self._mean_length)
        for word, count in Counter(words).items():
            postings = self.postings.get(word)
            if postings is None:
                postings = self.postings[word] = _Postings(self._idf(word))
            postings.add(row, postings.idf * (count / (count + norm)))

    def view(self, rows: int, names_of: NamesOf) -> WordsView:
        """Returns the words of the first rows.

        Args:
            names_of: Gives the document ids of rows.
        """
        return WordsView(self, rows, names_of)

    def _idf(self, word: str) -> float:
        number = self.vocabulary.number(word)
        found_in = float(self.vocabulary.chunks[number]) if number >= 0 else 0.0
        # By numpy, as the builder: the C library's logarithm may differ in the last bit.
        return float(np.log(1 + (self._card.chunks - found_in + 0.5) / (found_in + 0.5)))


class WordsView:
    """`Words` at one moment; equal scores stand in the order of document ids, then of rows.

    Args:
        store: What holds them; it may go on growing.
        rows: How many there are.
        names_of: Gives the document ids of rows.
    """

    def __init__(self, store: LiveWords, rows: int, names_of: NamesOf) -> None:
        self._store = store
        self._rows = rows
        self._names_of = names_of

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the best rows by BM25: rows and scores > 0; see `LexicalIndex.search`."""
        total = np.zeros(self._rows, np.float32)
        for rows, scores in self._columns(text):
            total[rows] += scores
        met = np.flatnonzero(total)
        if allow is not None:
            met = met[allow[met]]
        return rank_rows(met, total[met], k, self._names_of)

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 score of rows, to the bit what `search` gives; 0 without a word."""
        return sum_scores(self._columns(text), rows)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the words of a text, each once, with the chunks of the snapshot that have it."""
        return self._store.vocabulary.terms(text)

    def _columns(self, text: str) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """Yields rows and scores of each word of a text that any row has, in order."""
        for word in self._store.asked(text):
            postings = self._store.postings.get(word)
            if postings is None:
                continue
            rows, scores = postings.columns
            stop = rows.searchsorted(np.int32(self._rows))
            if stop:
                yield rows[:stop], scores[:stop]
