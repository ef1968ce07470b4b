"""How well the titles of rows that Milvus has found match a query."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retrieval.index.lexical.document_words import TitleWords, WordCounter
from retrieval.index.lexical.language_words import Alternative
from retrieval.index.lexical.title_index import Titles, match_titles
from retrieval.index.lexical.vocabulary import Vocabulary

_CACHED_TITLES = 16_384
_CACHED_WORDS = 65_536


class TitleLevels:
    """Compares titles with queries; see `match_titles`. Their popularity is unknown.

    Args:
        vocabulary: The words of the snapshot.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        analyser = vocabulary.analyser
        stem = lru_cache(_CACHED_WORDS)(lambda word: analyser.stems([word])[0])
        counter: WordCounter[str] = WordCounter(analyser, stem, {})

        def words_of(title: str) -> TitleWords[str]:
            return counter.document(title, {}).title

        self._words_of = lru_cache(_CACHED_TITLES)(words_of)

    def levels(self, text: str, titles: Sequence[str]) -> NDArray[np.float32]:
        """Returns the level of each title: (n,) float32, 0 for those that do not match."""
        query = self._vocabulary.query(text)
        if not query.is_title or not titles:
            return np.zeros(len(titles), np.float32)
        found = list(map(self._words_of, titles))
        rows: dict[str, list[int]] = {}
        for row, title in enumerate(found):
            for word in title.words:
                rows.setdefault(word, []).append(row)

        def rows_of(word: Alternative) -> NDArray[np.int32]:
            return np.array(rows.get(word.word, ()), np.int32)

        most = np.iinfo(np.uint16).max
        matches = match_titles(
            query,
            Titles(
                rows_of,
                lambda prefix: [],
                np.array([min(title.content, most) for title in found], np.uint16),
                np.array([title.key for title in found], np.uint64),
            ),
        )
        return matches.at(np.arange(len(titles)))
