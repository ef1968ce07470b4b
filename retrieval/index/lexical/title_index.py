"""The titles of the chunks of one shard, memory-mapped, and how well a query matches them.

In the lexical folder of the shard; rows are chunks, numbered as in the vector index:
    title_starts.npy (words + 1,) int64: word w is in title_rows starts[w]..starts[w + 1] - 1.
    title_rows.npy (n,) int32, ascending within a word: chunks whose document has it in its title.
    title_words.npy (rows,) uint16: distinct words of the title that are not stop words.
    title_keys.npy (rows,) uint64: see `title_key`.
    popularity.npy (rows,) float32, 0..1; missing where nothing is known about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from retrieval.index.lexical.array_files import map_array
from retrieval.index.lexical.lexical_query import Alternative, Clause, LexicalQuery, PrefixQuery

TITLE_STARTS, TITLE_ROWS = "title_starts.npy", "title_rows.npy"
TITLE_WORDS, TITLE_KEYS, POPULARITY = "title_words.npy", "title_keys.npy", "popularity.npy"
# How a title matches a query, best first: it is the query, spaces aside; it has the same words,
# stop words, order, endings and misspelt words aside; it has all words of the query.
EXACT, SAME_WORDS, ALL_WORDS = 3.0, 2.0, 1.0
# A title that only matches because a word of the query is taken for misspelt.
_MISSPELT = 0.5
# Among titles that are equally good: the accents that were asked for, then popularity.
_ACCENTS, _POPULARITY = 0.25, 0.2
# People type the same first letters; those of all prefixes of two letters, and many longer ones.
_CACHED_PREFIXES = 2_048
# So many times the wanted rows are kept for a prefix, since some may be hidden or filtered out.
_KEPT_BEST = 4

# Returns the rows, ascending, whose titles have a word.
RowsOf = Callable[[Alternative], NDArray[np.int32]]
# Returns the rows, ascending, whose titles may have a word that begins with a prefix.
RowsStarting = Callable[[str], NDArray[np.int32]]


class Titles(NamedTuple):
    """The titles of rows; see the module for the columns. popularity: None if it is unknown."""

    rows_of: RowsOf
    rows_starting: RowsStarting
    words: NDArray[np.uint16]
    keys: NDArray[np.uint64]
    popularity: NDArray[np.float32] | None = None


class WordRange(NamedTuple):
    """Words of a vocabulary: first..stop - 1, and others."""

    first: int
    stop: int
    others: Sequence[int]


class TitleIndex:
    """The titles of one shard.

    Args:
        starts, rows, words, keys, popularity: See the module.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        rows: NDArray[np.int32],
        words: NDArray[np.uint16],
        keys: NDArray[np.uint64],
        popularity: NDArray[np.float32] | None,
        words_starting: Callable[[str], WordRange],
    ) -> None:
        self._starts = starts
        self._rows = rows
        self._words_starting = words_starting
        starting = lru_cache(_CACHED_PREFIXES)(self._rows_starting)
        self._titles = Titles(self._rows_of, starting, words, keys, popularity)
        self._best_starting = lru_cache(_CACHED_PREFIXES)(self._find_best_starting)

    @classmethod
    def load(
        cls, folder: Path, words: int, rows: int, words_starting: Callable[[str], WordRange]
    ) -> TitleIndex:
        """Maps the titles of a shard.

        Args:
            folder: The lexical folder of the shard.
            words: Number of words in the vocabulary.
            rows: Number of chunks in the shard.
            words_starting: Returns the words of the vocabulary that begin with a prefix.
        Raises: SnapshotCorrupt: a file is missing, invalid, or inconsistent with the others.
        """
        starts = map_array(folder / TITLE_STARTS, np.dtype(np.int64))
        found = map_array(folder / TITLE_ROWS, np.dtype(np.int32))
        counts = map_array(folder / TITLE_WORDS, np.dtype(np.uint16))
        keys = map_array(folder / TITLE_KEYS, np.dtype(np.uint64))
        popularity: NDArray[np.float32] | None = None
        if (folder / POPULARITY).exists():
            popularity = map_array(folder / POPULARITY, np.dtype(np.float32))
        lengths = (len(starts), len(found), len(counts), len(keys))
        postings = int(starts[-1]) if len(starts) else -1
        wanted = (words + 1, postings, rows, rows)
        if lengths != wanted or (popularity is not None and len(popularity) != rows):
            raise SnapshotCorrupt(
                f"the titles in {folder} have arrays of lengths {lengths}, not {wanted}; rebuild "
                "the snapshot"
            )
        return cls(starts, found, counts, keys, popularity, words_starting)

    def matches(self, query: LexicalQuery) -> TitleMatches:
        """Returns the rows whose titles match a query."""
        return match_titles(query, self._titles)

    def complete(
        self, query: PrefixQuery, most: int, allow: NDArray[np.bool_] | None
    ) -> NDArray[np.int32]:
        """Returns rows whose titles complete a query; see `complete_titles`."""
        if query.prefix and not query.required:
            # The first letters have the most rows, and everybody types them.
            best, is_all = self._best_starting(query.prefix, _KEPT_BEST * most)
            kept = best if allow is None else best[allow[best]]
            if len(best) and (is_all or len(kept) >= most):
                return kept[:most]
        return complete_titles(query, self._titles, most, allow)

    def _find_best_starting(self, prefix: str, most: int) -> tuple[NDArray[np.int32], bool]:
        """Returns the best rows for a prefix, in order, and whether there are no others."""
        best = complete_titles(PrefixQuery((), prefix), self._titles, most, None)
        return best, len(best) < most

    def _rows_starting(self, prefix: str) -> NDArray[np.int32]:
        first, stop, others = self._words_starting(prefix)
        # The words of a prefix are neighbours, and so are their rows.
        found = [self._rows[self._starts[first] : self._starts[stop]]]
        found += [self._rows[self._starts[word] : self._starts[word + 1]] for word in others]
        return distinct_rows(found, len(self._titles.words))

    def popularity(self, row: int) -> float:
        """Returns the popularity of the document of a row, 0..1; 0 if it is unknown."""
        popularity = self._titles.popularity
        return 0.0 if popularity is None else float(popularity[row])

    def _rows_of(self, word: Alternative) -> NDArray[np.int32]:
        if word.number < 0:
            return self._rows[:0]
        return self._rows[self._starts[word.number] : self._starts[word.number + 1]]


class TitleMatches(NamedTuple):
    """Rows, ascending, whose titles match a query, and how well: (n,) int32 and float32 > 0."""

    rows: NDArray[np.int32]
    levels: NDArray[np.float32]

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the level of each row: (n,) float32, 0 for rows that do not match."""
        if not len(self.rows):
            return np.zeros(len(rows), np.float32)
        places = np.searchsorted(self.rows, rows)
        places[places == len(self.rows)] = 0
        return np.where(self.rows[places] == rows, self.levels[places], np.float32(0))


NO_MATCHES = TitleMatches(np.empty(0, np.int32), np.empty(0, np.float32))


def distinct_rows(columns: Sequence[NDArray[np.int32]], rows: int) -> NDArray[np.int32]:
    """Returns the rows of columns, ascending, each once; `rows` is the number of all."""
    found = np.concatenate(columns)
    if len(found) < rows >> 3:
        found.sort()
        return found[np.diff(found, prepend=-1) > 0]
    # For a million rows 6 ms, and 760 with `np.unique`.
    marked = np.zeros(rows, np.bool_)
    marked[found] = True
    return np.flatnonzero(marked).astype(np.int32)


def match_titles(query: LexicalQuery, titles: Titles) -> TitleMatches:
    """Returns the rows whose titles match a query.

    A row depends on its own title alone, so that the level of a document is the same in a snapshot,
    among live changes, and in any shard.
    """
    required = query.required
    if not required:
        return NO_MATCHES
    # As written or as a compound; then also those that resemble a misspelt word.
    plain = [Clause(tuple(a for a in c.alternatives if a.weight == 1)) for c in required]
    rows = _having_all(plain, titles.rows_of)
    levels = _levels(query, plain, rows, titles, ALL_WORDS, SAME_WORDS)
    if any(
        len(more.alternatives) > len(c.alternatives)
        for c, more in zip(plain, required, strict=True)
    ):
        others = _having_all(required, titles.rows_of)
        others = others[~_are_in(others, rows)]
        more_levels = _levels(
            query, required, others, titles, ALL_WORDS - _MISSPELT, SAME_WORDS - _MISSPELT
        )
        rows, levels = np.concatenate((rows, others)), np.concatenate((levels, more_levels))
        order = np.argsort(rows)
        rows, levels = rows[order], levels[order]
    return TitleMatches(rows, levels)


def complete_titles(
    query: PrefixQuery, titles: Titles, most: int, allow: NDArray[np.bool_] | None
) -> NDArray[np.int32]:
    """Returns rows whose titles have the words of a query, the last of which may go on.

    Args:
        query: What was typed.
        titles: The titles.
        most: Rows to return at most: the most popular, then those with the shortest titles.
        allow: (rows,) bool, the rows to search; None means all.
    """
    columns = [_union(clause, titles.rows_of) for clause in query.required]
    if query.prefix:
        starting = titles.rows_starting(query.prefix)
        if not len(starting) and query.misspelt is not None:
            starting = _union(query.misspelt(), titles.rows_of)
        columns.append(starting)
    if not columns:
        return np.empty(0, np.int32)
    rows = _intersection(columns)
    if allow is not None:
        rows = rows[allow[rows]]
    order = titles.words[rows].astype(np.float32) / np.float32(1 << 17)
    if titles.popularity is not None:
        order -= titles.popularity[rows]
    if len(rows) > most:
        best = np.argpartition(order, most - 1)[:most]
        rows, order = rows[best], order[best]
    return rows[np.lexsort((rows, order))]


def _levels(
    query: LexicalQuery,
    clauses: Sequence[Clause],
    rows: NDArray[np.int32],
    titles: Titles,
    all_words: float,
    same_words: float,
) -> NDArray[np.float32]:
    """Returns the levels of rows that have a word of each clause."""
    levels = np.full(len(rows), all_words, np.float32)
    words = titles.words[rows]
    same = np.flatnonzero(words <= len(clauses))
    if len(same) and any(len(clause.alternatives) > 1 for clause in clauses):
        same = same[words[same] <= _count_matched(clauses, rows[same], titles.rows_of)]
    levels[same] = same_words
    levels[titles.keys[rows] == np.uint64(query.key)] = EXACT
    named = np.flatnonzero(levels > ALL_WORDS)
    if query.accents and len(named):
        accented = np.ones(len(named), np.bool_)
        for word in query.accents:
            accented &= _are_in(rows[named], titles.rows_of(word))
        levels[named] += np.where(accented, np.float32(_ACCENTS), np.float32(0))
    if titles.popularity is not None:
        levels[named] += np.float32(_POPULARITY) * titles.popularity[rows[named]]
    return levels


def _count_matched(
    clauses: Sequence[Clause], rows: NDArray[np.int32], rows_of: RowsOf
) -> NDArray[np.int64]:
    """Returns how many words of each title the clauses stand for: each for the first it can.

    Two words that are one compound in a title are one there, and so are two spellings of a word.
    """
    numbers: dict[str, int] = {}
    matched = np.full((len(clauses), len(rows)), -1, np.int64)
    for clause, column in zip(clauses, matched, strict=True):
        for word in reversed(clause.alternatives):
            number = numbers.setdefault(word.word, len(numbers))
            column[_are_in(rows, rows_of(word))] = number
    matched.sort(axis=0)
    distinct: NDArray[np.int64] = 1 + np.count_nonzero(matched[1:] != matched[:-1], axis=0)
    return distinct


def _having_all(clauses: Sequence[Clause], rows_of: RowsOf) -> NDArray[np.int32]:
    """Returns the rows, ascending, that have a word of each clause."""
    return _intersection([_union(clause, rows_of) for clause in clauses])


def _intersection(columns: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    columns.sort(key=len)
    rows = columns[0]
    for column in columns[1:]:
        rows = rows[_are_in(rows, column)]
    return rows


def _are_in(rows: NDArray[np.int32], column: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns for each row whether it is in a column, which is ascending."""
    if not len(column):
        return np.zeros(len(rows), np.bool_)
    places = np.searchsorted(column, rows)
    places[places == len(column)] = 0
    found: NDArray[np.bool_] = column[places] == rows
    return found


def _union(clause: Clause, rows_of: RowsOf) -> NDArray[np.int32]:
    found = [rows for rows in map(rows_of, clause.alternatives) if len(rows)]
    if len(found) <= 1:
        return found[0] if found else np.empty(0, np.int32)
    # Columns are ascending, and a stable sort merges such runs, much faster than `np.unique`.
    rows = np.sort(np.concatenate(found), kind="stable")
    return rows[np.concatenate(([True], rows[1:] != rows[:-1]))]
