"""The titles of the chunks of one shard, memory-mapped, and how well a query matches them.

In the lexical folder of the shard; rows are chunks, numbered as in the vector index:
    title_starts.npy (words + 1,) int64: word w is in title_rows starts[w]..starts[w + 1] - 1.
    title_rows.npy (n,) int32, ascending within a word: chunks whose document has it in its title.
    title_words.npy (rows,) uint16: distinct words of the title that are not stop words.
    title_keys.npy (rows,) uint64: see `title_key`.
    popularity.npy (rows,) float32, 0..1; missing where nothing is known about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from retrieval.index.lexical.array_files import map_array
from retrieval.index.lexical.language_words import Alternative, WordRange
from retrieval.index.lexical.lexical_query import Clause, LexicalQuery, PrefixQuery
from retrieval.index.weak_methods import weak_method

TITLE_STARTS, TITLE_ROWS = "title_starts.npy", "title_rows.npy"
TITLE_WORDS, TITLE_KEYS, POPULARITY = "title_words.npy", "title_keys.npy", "popularity.npy"
# How a title matches a query, best first: it is the query, spaces aside; it has the same words,
# stop words, order, endings and misspelt words aside; it has all words of the query.
EXACT, SAME_WORDS, ALL_WORDS = 3.0, 2.0, 1.0
# A title that only matches because a word of the query is taken for misspelt.
_MISSPELT = 0.5
# Among titles that are equally good: the accents that were asked for, then popularity.
_ACCENTS, _POPULARITY = 0.25, 0.2
# A column with more than this part of all rows has many.
_MANY = 128

# Returns the rows, ascending, whose titles have a word.
RowsOf = Callable[[Alternative], NDArray[np.int32]]
# Returns columns of rows whose titles may have a word that begins with a prefix; with repetitions.
RowsStarting = Callable[[str], list[NDArray[np.int32]]]


class Titles(NamedTuple):
    """The titles of rows; see the module for the columns.

    popularity: None if it is unknown. best_first: All rows as `_preference` orders them; None if
    they are not kept in that order.
    """

    rows_of: RowsOf
    rows_starting: RowsStarting
    words: NDArray[np.uint16]
    keys: NDArray[np.uint64]
    popularity: NDArray[np.float32] | None = None
    best_first: NDArray[np.int32] | None = None


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
        rows_of, rows_starting = weak_method(self.rows_of), weak_method(self._rows_starting)
        titles = Titles(rows_of, rows_starting, words, keys, popularity)
        every = _preference(np.arange(len(words), dtype=np.int32), titles)
        # For a million rows 0.1 s, and 4 bytes a row.
        best_first = np.argsort(every, kind="stable").astype(np.int32)
        self._titles = titles._replace(best_first=best_first)

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
        return complete_titles(query, self._titles, most, allow)

    def _rows_starting(self, prefix: str) -> list[NDArray[np.int32]]:
        first, stop, others = self._words_starting(prefix)
        # The words of a prefix are neighbours, and so are their rows.
        found = [self._rows[self._starts[first] : self._starts[stop]]]
        found += [self._rows[self._starts[word] : self._starts[word + 1]] for word in others]
        return found

    def popularity(self, row: int) -> float:
        """Returns the popularity of the document of a row, 0..1; 0 if it is unknown."""
        popularity = self._titles.popularity
        return 0.0 if popularity is None else float(popularity[row])

    def rows_of(self, word: Alternative) -> NDArray[np.int32]:
        """Returns the rows whose titles have a word."""
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


def match_titles(query: LexicalQuery, titles: Titles) -> TitleMatches:
    """Returns the rows whose titles match a query.

    A row depends on its own title alone, so that the level of a document is the same in a snapshot,
    among live changes, and in any shard.
    """
    required = query.required
    if not query.is_title:
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
        most: Rows to return at most: those whose title is the text, then the most popular, then
            those with the shortest titles.
        allow: (rows,) bool, the rows to search; None means all.
    """
    columns = [_columns(clause, titles.rows_of) for clause in query.required]
    if query.prefix:
        starting = titles.rows_starting(query.prefix)
        if not any(map(len, starting)) and query.misspelt is not None:
            starting = _columns(query.misspelt(), titles.rows_of)
        columns.append(starting)
    if not columns:
        return np.empty(0, np.int32)
    total = len(titles.words)
    sizes = [sum(map(len, parts)) for parts in columns]
    order = np.argsort(sizes, kind="stable").tolist()
    if sizes[order[0]] <= total // _MANY:
        # Few rows at most: each is looked up in the others.
        rows = _distinct(columns[order[0]])
        for at in order[1:]:
            rows = rows[_marked(columns[at], total)[rows]] if len(rows) else rows
        if allow is not None:
            rows = rows[allow[rows]]
        exact = rows[titles.keys[rows] == np.uint64(query.key)] if query.key else rows[:0]
        return _exact_first(exact, _best(rows, titles, most), titles, most)
    found = _marked(columns[order[0]], total)
    for at in order[1:]:
        found &= _marked(columns[at], total)
    if allow is not None:
        found &= allow
    exact = np.empty(0, np.int32)
    if query.key:
        # Few are: so the others need not be found first.
        exact = np.flatnonzero(titles.keys == np.uint64(query.key)).astype(np.int32)
        exact = exact[found[exact]]
    if titles.best_first is None or np.count_nonzero(found) <= total // _MANY:
        rows = _best(np.flatnonzero(found).astype(np.int32), titles, most)
        return _exact_first(exact, rows, titles, most)
    # Enough are among the first of all.
    best: list[NDArray[np.int32]] = []
    count, step = 0, _MANY * most
    for start in range(0, total, step):
        part = titles.best_first[start : start + step]
        best.append(part[found[part]])
        count += len(best[-1])
        if count >= most:
            break
    return _exact_first(exact, np.concatenate(best)[:most], titles, most)


def _exact_first(
    exact: NDArray[np.int32], rows: NDArray[np.int32], titles: Titles, most: int
) -> NDArray[np.int32]:
    """Returns rows after those whose title is the text, however unpopular these are."""
    if not len(exact):
        return rows
    return np.concatenate((_best(exact, titles, most), rows[~np.isin(rows, exact)]))[:most]


def _preference(rows: NDArray[np.int32], titles: Titles) -> NDArray[np.float32]:
    """Returns a sort key of rows: popular ones first, then those of few words."""
    key = titles.words[rows].astype(np.float32) / np.float32(1 << 17)
    if titles.popularity is not None:
        key -= titles.popularity[rows]
    return key


def _best(rows: NDArray[np.int32], titles: Titles, most: int) -> NDArray[np.int32]:
    """Returns the preferred rows, at most so many, in order."""
    key = _preference(rows, titles)
    if len(rows) > most:
        # All ties at the edge are kept, of which the lowest rows are needed.
        kept = key <= np.partition(key, most - 1)[most - 1]
        rows, key = rows[kept], key[kept]
    return rows[np.lexsort((rows, key))][:most]


def _columns(clause: Clause, rows_of: RowsOf) -> list[NDArray[np.int32]]:
    """Returns the rows of each alternative of a clause."""
    return [rows_of_all(word, rows_of) for word in clause.alternatives]


def rows_of_all(word: Alternative, rows_of: RowsOf) -> NDArray[np.int32]:
    """Returns the rows, ascending, with a word, or with all of several."""
    return common_rows(map(rows_of, word.parts)) if word.parts else rows_of(word)


def _marked(columns: Sequence[NDArray[np.int32]], total: int) -> NDArray[np.bool_]:
    """Returns for each of all rows whether it is in a column: (total,) bool."""
    marks = np.zeros(total, np.bool_)
    for rows in columns:
        # NumPy converts other indices piecemeal, which takes twice as long.
        marks[rows.astype(np.intp)] = True
    return marks


def _distinct(columns: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Returns the rows of columns, each once, ascending."""
    found = [rows for rows in columns if len(rows)]
    if len(found) <= 1:
        return found[0] if found else np.empty(0, np.int32)
    # Columns are ascending, and a stable sort merges such runs, much faster than `np.unique`.
    rows = np.sort(np.concatenate(found), kind="stable")
    return rows[np.concatenate(([True], rows[1:] != rows[:-1]))]


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
    # A clause stands for one word of a title, or for all words of a synonym.
    most = sum(max(len(word.parts) or 1 for word in clause.alternatives) for clause in clauses)
    same = np.flatnonzero(words <= most)
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
    matched: dict[str, NDArray[np.bool_]] = {}
    for clause in clauses:
        open_rows = np.ones(len(rows), np.bool_)
        for word in clause.alternatives:
            found = open_rows & _are_in(rows, rows_of_all(word, rows_of))
            if not found.any():
                continue
            open_rows &= ~found
            for part in word.parts or (word,):
                matched[part.word] = matched[part.word] | found if part.word in matched else found
    count = np.zeros(len(rows), np.int64)
    for found in matched.values():
        count += found
    return count


def _having_all(clauses: Sequence[Clause], rows_of: RowsOf) -> NDArray[np.int32]:
    """Returns the rows, ascending, that have a word of each clause."""
    return common_rows(_distinct(_columns(clause, rows_of)) for clause in clauses)


def common_rows(columns: Iterable[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Returns the rows, ascending, that are in all columns, which are ascending; at least one."""
    rows, *others = sorted(columns, key=len)
    for column in others:
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
