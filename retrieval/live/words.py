"""The words of live documents, scored by BM25 with the frozen statistics of the snapshot:

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 (1 - b + b l / L))
N, n, k1, b and L are those of the snapshot, so a live document scores bit-identically to the same
document in the snapshot, and their hits can be merged. For unknown words, n = 0.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.v1 import snapshot_pb2
from retrieval.index.best_rows import NamesOf, rank_rows
from retrieval.index.lexical.bm25_index import (
    Column,
    clause_columns,
    sum_scores,
    title_score,
    word_rows,
)
from retrieval.index.lexical.document_words import FieldWords, WordCounter
from retrieval.index.lexical.language_words import (
    EDIT_WEIGHTS,
    MAX_SIMILAR,
    MAX_STARTING,
    PREFIX_WEIGHT,
    Alternative,
    prefix_of,
)
from retrieval.index.lexical.lexical_query import LexicalQuery, MoreWords, may_go_on
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.title_index import (
    TitleMatches,
    Titles,
    complete_titles,
    match_titles,
)
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.index.lexical.word_forms import is_form, similar_words
from retrieval.index.lexical.word_matcher import WordMatcher
from retrieval.index.weak_methods import weak_method
from retrieval.live.documents import GrowableArray

# Beyond every row: marks the unused end of a column.
_NO_ROW = np.iinfo(np.int32).max
_LAST_CHARACTER = "\U0010ffff"
# Words of live documents that are stemmed once.
_CACHED_WORDS = 65_536
# New words of live documents that misspelt words are compared with: 2 ms for each misspelt word.
_MAX_FORMS = 16_384


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
        # By word, the rows whose titles have it; the scores mean nothing.
        self.titles: dict[str, _Postings] = {}
        self.title_words, self.title_keys = GrowableArray(np.uint16), GrowableArray(np.uint64)
        self.popularity = GrowableArray(np.float32)
        # Words that the snapshot does not know, as they are written, and their stems: those of the
        # language of the collection, then those of each other language.
        self.new_forms: list[dict[str, str]] = []
        # The words of titles, in order.
        self.title_stems: list[str] = []
        own = self._field_words(vocabulary.analyser, "")
        others = {
            language: self._field_words(analyser, prefix_of(language))
            for language, analyser in vocabulary.other_analysers.items()
        }
        self._words: WordCounter[str] = WordCounter(
            *own,
            dict(card.weights),
            {name: others.get(language, own) for name, language in card.languages.items()},
        )

    def add(
        self,
        row: int,
        title: str,
        attributes: Mapping[str, Any],
        texts: Sequence[str],
        popularity: float = 0.0,
    ) -> None:
        """Adds the chunks of a document; rows must be added in order.

        Args:
            row: Row number of the first chunk.
            title, attributes: Of the document.
            texts: The text of each chunk.
            popularity: Of the document, 0..1.
        """
        document = self._words.document(title, attributes)
        for at, text in enumerate(texts, start=row):
            counts, length = self._words.chunk(document, text)
            norm = self._k1 * (1 - self._b + self._b * length / self._mean_length)
            for word, count in counts.items():
                postings = self.postings.get(word)
                if postings is None:
                    postings = self.postings[word] = _Postings(self._idf(word))
                # As the builder stores it.
                count = float(np.float32(count))
                postings.add(at, postings.idf * (count / (count + norm)))
            for word in document.title.words:
                postings = self.titles.get(word)
                if postings is None:
                    postings = self.titles[word] = _Postings(0.0)
                    insort(self.title_stems, word)
                postings.add(at, 0.0)
            self.title_words.add(min(document.title.content, np.iinfo(np.uint16).max))
            self.title_keys.add(document.title.key)
            self.popularity.add(popularity)

    def view(self, rows: int, names_of: NamesOf) -> WordsView:
        """Returns a view of the first rows.

        Args:
            names_of: Returns the document ids of rows.
        """
        return WordsView(self, rows, names_of)

    def _field_words(self, analyser: Analyser, prefix: str) -> FieldWords[str]:
        """Returns how texts become words of a language, which are stored after a prefix."""
        forms: dict[str, str] = {}
        self.new_forms.append(forms)
        stem = partial(weak_method(self._stem), analyser, prefix, forms)
        return FieldWords(analyser, lru_cache(_CACHED_WORDS)(stem))

    def _stem(self, analyser: Analyser, prefix: str, forms: dict[str, str], word: str) -> str:
        stem = prefix + analyser.stems([word])[0]
        if len(forms) < _MAX_FORMS and is_form(word) and self.vocabulary.number(stem) < 0:
            forms[word] = stem
        return stem

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
        self._titles = Titles(
            weak_method(self._title_rows),
            weak_method(self._rows_starting),
            store.title_words.values[:rows],
            store.title_keys.values[:rows],
            store.popularity.values[:rows],
        )
        self._last: tuple[str, LexicalQuery] | None = None

    def search(
        self, text: str, k: int, allow: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns the best rows and their scores > 0; see `LexicalIndex.search`."""
        query = self._query(text)
        total = np.zeros(self._rows, np.float32)
        for rows, scores in self._columns(query):
            total[rows] += scores
        titles = self._matches(query)
        total[titles.rows] += titles.levels * title_score(query)
        found = np.flatnonzero(total)
        if allow is not None:
            found = found[allow[found]]
        return rank_rows(found, total[found], k, self._names_of)

    def scores(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the BM25 scores of rows, whatever their titles; 0 without a common word."""
        return sum_scores(self._columns(self._query(text)), rows)

    def title_levels(self, text: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns how well the titles of rows match a query; see `LexicalIndex`."""
        return self._matches(self._query(text)).at(rows)

    def title_score(self, text: str) -> float:
        """Returns what each level of a matching title adds to the score of a row."""
        return float(title_score(self._query(text)))

    def rows_with_words(self, text: str, *, similar: bool) -> list[list[NDArray[np.int32]]]:
        """Returns for each different word of a text the columns of rows that have it."""
        return word_rows(self._query(text), self._rows_of, similar=similar)

    def complete(
        self, text: str, most: int, allow: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]:
        """Returns rows whose titles complete a text, the most popular first."""
        more = MoreWords(self._new_similar, self._new_starting)
        has_new = any(self._store.new_forms)
        query = self._store.vocabulary.prefix_query(text, more if has_new else None)
        return complete_titles(query, self._titles, most, allow)

    def correction(self, text: str) -> str:
        """Returns a query with known words in place of unknown ones; empty if none is."""
        return self._store.vocabulary.correction(text)

    def popularity(self, row: int) -> float:
        """Returns the popularity of the document of a row, 0..1."""
        return float(self._store.popularity.values[row])

    def matcher(self, text: str, chunks: int) -> WordMatcher:
        """Returns what finds the words of a query, and new words for misspelt ones, in texts."""
        return WordMatcher.of(self._store.vocabulary, self._query(text), chunks)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the distinct words of a text, each with its number of chunks in the snapshot."""
        return self._store.vocabulary.terms(text)

    def _query(self, text: str) -> LexicalQuery:
        """Returns the parsed query, in which new words may stand for misspelt ones."""
        last = self._last
        if last is None or last[0] != text:
            query = self._store.vocabulary.query(text)
            unknown = may_go_on(text) or any(clause.misspelt for clause in query.clauses)
            if unknown and any(self._store.new_forms):
                more = MoreWords(self._new_similar, self._new_starting)
                query = self._store.vocabulary.query_with(text, more)
            last = self._last = text, query
        return last[1]

    def _new_similar(self, word: str, own: Sequence[Alternative]) -> Sequence[Alternative]:
        """Returns new words of live documents that a misspelt one may stand for."""
        if any(one.word in self._store.postings for one in own):
            return ()
        # The writer may add forms; copying a dictionary is one step.
        return [
            Alternative(forms[form], -1, np.float32(EDIT_WEIGHTS[edits]))
            for forms in self._store.new_forms
            for edits, form in similar_words(word, list(forms.copy()))[:MAX_SIMILAR]
        ]

    def _new_starting(self, prefix: str) -> Sequence[Alternative]:
        """Returns new words of live documents that begin with a prefix."""
        weight = np.float32(PREFIX_WEIGHT)
        return [
            Alternative(forms[form], -1, weight)
            for forms in self._store.new_forms
            for form in sorted(one for one in forms.copy() if one.startswith(prefix))[:MAX_STARTING]
        ]

    def _matches(self, query: LexicalQuery) -> TitleMatches:
        return match_titles(query, self._titles)

    def _columns(self, query: LexicalQuery) -> Iterator[Column]:
        """Yields rows and scores for each clause that occurs in a row, in order."""
        return clause_columns(query, self._column)

    def _column(self, word: Alternative) -> Column | None:
        return self._cut(self._store.postings.get(word.word))

    def _rows_of(self, word: Alternative) -> NDArray[np.int32]:
        column = self._column(word)
        return self._title_rows(word) if column is None else column[0]

    def _title_rows(self, word: Alternative) -> NDArray[np.int32]:
        column = self._cut(self._store.titles.get(word.word))
        return np.empty(0, np.int32) if column is None else column[0]

    def _rows_starting(self, prefix: str) -> list[NDArray[np.int32]]:
        stems = self._store.title_stems
        first, stop = bisect_left(stems, prefix), bisect_left(stems, prefix + _LAST_CHARACTER)
        # The writer may add a word meanwhile, which moves others.
        found = [word for word in stems[first:stop] if word.startswith(prefix)]
        columns = [column for word in found if (column := self._cut(self._store.titles.get(word)))]
        return [rows for rows, _ in columns]

    def _cut(self, postings: _Postings | None) -> Column | None:
        """Returns the part of a column in the rows of this view."""
        if postings is None:
            return None
        rows, scores = postings.columns
        stop = rows.searchsorted(np.int32(self._rows))
        return (rows[:stop], scores[:stop]) if stop else None
