"""Finds the words of a query in a text: by their stems, as compounds, and as corrections."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from retrieval.index.lexical.lexical_query import Alternative, LexicalQuery
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.text_spans import index_word_spans
from retrieval.index.lexical.vocabulary import Vocabulary

# Parts of 1: sums of integers do not depend on their order.
_UNIT = 1_024


class MatchedWord(NamedTuple):
    """A word of a text that stands for words of a query.

    start, end: Code points. weights: For each word of the query that it stands for, its number and
    its weight: the idf, times the share of the score that counts, in 1024ths.
    """

    start: int
    end: int
    weights: Sequence[tuple[int, int]]


class WordMatcher:
    """Finds the words of one query.

    Args:
        analyser: Splits texts.
        weights: For each stem, the words of the query that it stands for; see `MatchedWord`.
    """

    def __init__(
        self, analyser: Analyser, weights: Mapping[str, Sequence[tuple[int, int]]]
    ) -> None:
        self._analyser = analyser
        self._weights = weights

    @classmethod
    def of(cls, vocabulary: Vocabulary, query: LexicalQuery, chunks: int) -> WordMatcher:
        """Returns the matcher of a query.

        Args:
            vocabulary: The words of the snapshot.
            query: The query, with all words that may stand for its own.
            chunks: Chunks of the collection.
        """
        weights: dict[str, list[tuple[int, int]]] = {}

        def add(number: int, words: Iterable[Alternative]) -> None:
            for word in words:
                found = weights.setdefault(word.word, [])
                if all(number != known for known, _ in found):
                    n = int(vocabulary.chunks[word.number]) if word.number >= 0 else 0
                    idf = math.log1p((max(chunks, n) - n + 0.5) / (n + 0.5))
                    found.append((number, max(1, round(_UNIT * idf * float(word.weight)))))

        numbers: dict[str, int] = {}
        for number, clause in enumerate(query.clauses):
            numbers.setdefault(clause.alternatives[0].word, number)
            add(number, clause.alternatives)
        # Compounds that stand for neighbours are looked for in titles alone.
        for clause in query.required:
            own = clause.alternatives[0].word
            add(numbers.setdefault(own, len(numbers)), clause.alternatives)
        return cls(vocabulary.analyser, weights)

    def find(self, text: str) -> list[MatchedWord]:
        """Returns all words of the query in a text, by (start, end); compounds overlap others.

        Takes about 1 ms for 1,000 words.
        """
        if not self._weights:
            return []
        by_word: dict[str, Sequence[tuple[int, int]]] = {}

        def select(words: set[str]) -> Container[str]:
            distinct = list(words)
            for word, stem in zip(distinct, self._analyser.stems(distinct), strict=True):
                if stem in self._weights:
                    by_word[word] = self._weights[stem]
            return by_word

        spans = index_word_spans(text, self._analyser.version, select)
        return sorted(MatchedWord(start, end, by_word[word]) for start, end, word in spans)


def merged_spans(words: Iterable[MatchedWord]) -> list[tuple[int, int]]:
    """Returns the places of words that are in order, overlapping ones as one."""
    spans: list[tuple[int, int]] = []
    for start, end, _ in words:
        if spans and start < spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], end)
        else:
            spans.append((start, end))
    return spans
