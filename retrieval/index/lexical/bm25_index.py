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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt, Unsupported
from retrieval.index.lexical.array_files import map_array
from retrieval.index.lexical.language_words import Alternative
from retrieval.index.lexical.lexical_query import LexicalQuery
from retrieval.index.lexical.title_index import (
    NO_MATCHES,
    TitleIndex,
    TitleMatches,
    common_rows,
    rows_of_all,
)
from retrieval.index.lexical.vocabulary import FOLDER, Vocabulary
from retrieval.index.lexical.word_matcher import WordMatcher
from retrieval.index.weak_methods import weak_method
from retrieval.protocols.shard import TITLE_SCORE

STARTS, ROWS, SCORES = "starts.npy", "rows.npy", "scores.npy"
# Lucene's defaults; docs/adr/0008-lexical-unit.md compares different values.
K1, B = 1.2, 0.75

# People type the same first letters. About 8 MB for each shard.
_CACHED_COMPLETIONS = 2_048
# So many times the wanted rows are kept for a text, since some may be hidden or filtered out.
_KEPT_COMPLETIONS = 4

NO_ROWS = np.empty(0, np.int32)
Column = tuple[NDArray[np.int32], NDArray[np.float32]]


class LexicalIndex:
    """The word index of one shard; may be searched from several threads.

    Each thread needs 4 bytes per row. A search takes time only for the postings of its words, not
    for all rows.

    Args:
        vocabulary: Vocabulary of the snapshot.
        rows: Number of chunks in the shard.
        starts, indices, scores: See the module.
        titles: Titles of the shard; None if the snapshot has none.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        rows: int,
        starts: NDArray[np.int64],
        indices: NDArray[np.int32],
        scores: NDArray[np.float32],
        titles: TitleIndex | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._rows = rows
        self._starts = starts
        self._indices = indices
        self._scores = scores
        self._titles = titles
        self._threads = threading.local()
        self._completions = lru_cache(_CACHED_COMPLETIONS)(weak_method(self._complete))

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
        starts = map_array(path / STARTS, np.dtype(np.int64))
        indices = map_array(path / ROWS, np.dtype(np.int32))
        scores = map_array(path / SCORES, np.dtype(np.float32))
        lengths = (len(starts), len(indices), len(scores))
        postings = int(starts[-1]) if len(starts) else -1
        if lengths != (len(vocabulary) + 1, postings, postings):
            raise SnapshotCorrupt(
                f"{path} has arrays of lengths {lengths}, but {len(vocabulary):,} words and "
                f"{postings:,} postings need {(len(vocabulary) + 1, postings, postings)}; rebuild "
                "the snapshot"
            )
        titles = None
        if vocabulary.analyser.version > 1:
            titles = TitleIndex.load(path, len(vocabulary), rows, vocabulary.starting)
        return cls(vocabulary, rows, starts, indices, scores, titles)

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns the best rows by BM25, those whose title matches the query first.

        Args:
            text: The query; repeated words count repeatedly.
            k: Number of rows, >= 1.
            allow: (rows,) bool, the rows to search; None means all.
        Returns: (n,) int64 rows and (n,) float32 scores > 0, n <= k, ordered by (score descending,
            row ascending): only rows that contain a word of the query, or a compound of its words
            in the title. The score is that of `scores`, plus the level of the title times
            `title_score` of the query.
        """
        query = self._vocabulary.query(text)
        total = self._thread_totals()
        scored: list[NDArray[np.int32]] = []
        try:
            for rows, scores in self._columns(query):
                # Every contribution is > 0, so a row with total 0 has not been scored before.
                before = total[rows]
                scored.append(rows[before == 0])
                total[rows] = before + scores
            titles = self._title_matches(query)
            before = total[titles.rows]
            # A title may match by a compound that does not count for the score.
            scored.append(titles.rows[before == 0])
            total[titles.rows] = before + titles.levels * title_score(query)
            found = np.concatenate(scored) if scored else np.empty(0, np.int32)
            allowed = found if allow is None else found[allow[found]]
            return _best(allowed, total[allowed], k)
        finally:
            for rows in scored:
                total[rows] = 0

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 scores of rows, whatever their titles.

        Args:
            text: The query.
            rows: (n,) rows of the shard, in any order.
        Returns: (n,) float32; 0 for rows without a word of the query.
        """
        return sum_scores(self._columns(self._vocabulary.query(text)), rows)

    def title_levels(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns how well the titles of rows match a query: (n,) float32; see `title_index`."""
        return self._title_matches(self._vocabulary.query(text)).at(rows)

    def title_score(self, text: str) -> float:
        """Returns what each level of a matching title adds to the score of a row."""
        return float(title_score(self._vocabulary.query(text)))

    def rows_with_words(self, text: str, *, similar: bool) -> list[list[NDArray[np.int32]]]:
        """Returns for each different word of a text the columns of rows that have it.

        Args:
            text: The words; stop words are left out if there are others, else titles are searched.
            similar: Whether words that resemble a misspelt one, and synonyms, count.
        """
        return word_rows(self._vocabulary.query(text), self._rows_of, similar=similar)

    def complete(
        self, text: str, most: int, allow: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]:
        """Returns rows whose titles complete a text; see `complete_titles`.

        Raises: Unsupported: the snapshot is older than this.
        """
        if self._titles is None:
            raise Unsupported(
                "the snapshot was built before titles could be completed; rebuild it, or compact "
                "its changes"
            )
        best, is_all = self._completions(text, _KEPT_COMPLETIONS * most)
        kept = best if allow is None else best[allow[best]]
        if is_all or len(kept) >= most:
            return kept[:most]
        return self._titles.complete(self._vocabulary.prefix_query(text), most, allow)

    def warm(self, most: int) -> None:
        """Completes the first letters that people type, which reads the titles from the disk.

        Args:
            most: As completions ask for.
        """
        if self._titles is not None:
            for text in (*ascii_lowercase, *digits):
                self.complete(text, most)

    def correction(self, text: str) -> str:
        """Returns a query with known words in place of unknown ones; empty if none is."""
        return self._vocabulary.correction(text)

    def popularity(self, row: int) -> float:
        """Returns the popularity of the document of a row, 0..1; 0 if it is unknown."""
        return 0.0 if self._titles is None else self._titles.popularity(row)

    def matcher(self, text: str, chunks: int) -> WordMatcher:
        """Returns what finds the words of a query in texts; see `WordMatcher.of`."""
        return WordMatcher.of(self._vocabulary, self._vocabulary.query(text), chunks)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the distinct words of a text; see `Vocabulary.terms`."""
        return self._vocabulary.terms(text)

    def close(self) -> None:
        """Drops the references to the files; no search may be running."""
        self._starts = np.zeros(len(self._vocabulary) + 1, np.int64)
        self._indices = np.empty(0, np.int32)
        self._scores = np.empty(0, np.float32)
        self._titles = None
        self._completions.cache_clear()

    def _complete(self, text: str, most: int) -> tuple[NDArray[np.int32], bool]:
        """Returns the best rows for a text, whoever may see them, and whether there are no more."""
        assert self._titles is not None
        best = self._titles.complete(self._vocabulary.prefix_query(text), most, None)
        return best, len(best) < most

    def _columns(self, query: LexicalQuery) -> Iterator[Column]:
        """Yields rows and scores for each clause that occurs in the shard, in order."""
        return clause_columns(query, self._column)

    def _column(self, word: Alternative) -> Column | None:
        if word.number < 0:
            return None
        start, stop = self._starts[word.number], self._starts[word.number + 1]
        return (self._indices[start:stop], self._scores[start:stop]) if start < stop else None

    def _rows_of(self, word: Alternative) -> NDArray[np.int32]:
        """Returns the rows with a word; of a stop word, those that have it in the title."""
        column = self._column(word)
        if column is not None:
            return column[0]
        return NO_ROWS if self._titles is None else self._titles.rows_of(word)

    def _title_matches(self, query: LexicalQuery) -> TitleMatches:
        """Returns the matching titles; those of the last query of each thread are kept."""
        if self._titles is None:
            return NO_MATCHES
        last, matches = getattr(self._threads, "titles", (None, NO_MATCHES))
        if last is not query:
            matches = self._titles.matches(query)
            self._threads.titles = query, matches
        return matches

    def _thread_totals(self) -> NDArray[np.float32]:
        """Returns the (rows,) zeros of this thread."""
        try:
            totals: NDArray[np.float32] = self._threads.totals
        except AttributeError:
            totals = self._threads.totals = np.zeros(self._rows, np.float32)
        return totals


def title_score(query: LexicalQuery) -> np.float32:
    """Returns what each level of a matching title adds to the score: more than all words do."""
    return np.float32(TITLE_SCORE * sum(clause.times for clause in query.clauses))


def word_rows(
    query: LexicalQuery, rows_of: Callable[[Alternative], NDArray[np.int32]], *, similar: bool
) -> list[list[NDArray[np.int32]]]:
    """Returns for each different word of a query the columns of rows that have it.

    Stop words of other languages of the snapshot are left out, unless there is no other word.

    Args:
        rows_of: Returns the rows that have a word.
        similar: Whether words that resemble a misspelt one count.
    """
    clauses = [clause for clause in query.required if not clause.optional] or query.required
    return [
        [rows_of_all(word, rows_of) for word in clause.alternatives if similar or word.weight == 1]
        for clause in clauses
    ]


def clause_columns(
    query: LexicalQuery, column_of: Callable[[Alternative], Column | None]
) -> Iterator[Column]:
    """Yields rows, ascending, and scores for each clause with rows, in order.

    Args:
        column_of: Returns the rows of a word and their scores; None if there are none.
    """
    for clause in query.clauses:
        columns = []
        for word in clause.alternatives:
            column = _sum_column(word.parts, column_of) if word.parts else column_of(word)
            if column is not None:
                rows, scores = column
                columns.append((rows, scores if word.weight == 1 else scores * word.weight))
        if columns:
            rows, scores = columns[0] if len(columns) == 1 else _best_column(columns)
            yield rows, scores if clause.times == 1 else scores * np.float32(clause.times)


def _sum_column(
    parts: Sequence[Alternative], column_of: Callable[[Alternative], Column | None]
) -> Column | None:
    """Returns the rows, ascending, that have all of several words, and the sums of their scores."""
    columns = [column for column in map(column_of, parts) if column is not None]
    if len(columns) < len(parts):
        return None
    common = common_rows(rows for rows, _ in columns)
    # In the order of the words, so that the sum is the same in any shard.
    return (common, sum_scores(columns, common)) if len(common) else None


def _best_column(columns: list[Column]) -> Column:
    """Returns the best score of each row of several columns."""
    rows = np.concatenate([rows for rows, _ in columns])
    scores = np.concatenate([scores for _, scores in columns])
    # Columns are ascending, and a stable sort merges such runs.
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    return rows[starts], np.maximum.reduceat(scores[order], starts)


def sum_scores(columns: Iterable[Column], rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
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
