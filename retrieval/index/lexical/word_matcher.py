"""Finds the words of a query in a text: by their stems, as compounds, and as corrections."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from retrieval.index.lexical.language_words import Alternative
from retrieval.index.lexical.lexical_query import LexicalQuery
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
        together: The same for stems that stand for them only where all of a set are in the text.
    """

    def __init__(
        self,
        analyser: Analyser,
        weights: Mapping[str, Sequence[tuple[int, int]]],
        together: Sequence[Mapping[str, tuple[int, int]]] = (),
    ) -> None:
        self._analyser = analyser
        self._weights = weights
        self._together = together

    @classmethod
    def of(cls, vocabulary: Vocabulary, query: LexicalQuery, chunks: int) -> WordMatcher:
        """Returns the matcher of a query.

        Args:
            vocabulary: The words of the snapshot.
            query: The query, with all words that may stand for its own.
            chunks: Chunks of the collection.
        """
        weights: dict[str, list[tuple[int, int]]] = {}
        together: dict[tuple[int, str], dict[str, tuple[int, int]]] = {}

        def weight(word: Alternative, share: float) -> int:
            n = int(vocabulary.chunks[word.number]) if word.number >= 0 else 0
            idf = math.log1p((max(chunks, n) - n + 0.5) / (n + 0.5))
            return max(1, round(_UNIT * idf * share))

        def add(number: int, words: Iterable[Alternative]) -> None:
            for word in words:
                if word.parts:
                    share = float(word.weight) / len(word.parts)
                    together[number, word.word] = {
                        part.word: (number, weight(part, share)) for part in word.parts
                    }
                    continue
                found = weights.setdefault(word.word, [])
                if all(number != known for known, _ in found):
                    found.append((number, weight(word, float(word.weight))))

        numbers: dict[str, int] = {}
        for number, clause in enumerate(query.clauses):
            numbers.setdefault(clause.alternatives[0].word, number)
            add(number, clause.alternatives)
        # Compounds that stand for neighbours are looked for in titles alone.
        for clause in query.required:
            own = clause.alternatives[0].word
            add(numbers.setdefault(own, len(numbers)), clause.alternatives)
        return cls(vocabulary.analyser, weights, list(together.values()))

    def find(self, text: str) -> list[MatchedWord]:
        """Returns all words of the query in a text, by (start, end); compounds overlap others.

        Takes about 1 ms for 1,000 words.
        """
        if not (self._weights or self._together):
            return []
        by_word: dict[str, Sequence[tuple[int, int]]] = {}

        def select(words: set[str]) -> Container[str]:
            distinct = list(words)
            stems = self._analyser.stems(distinct)
            weights = self._weights_in(set(stems)) if self._together else self._weights
            for word, stem in zip(distinct, stems, strict=True):
                if stem in weights:
                    by_word[word] = weights[stem]
            return by_word

        spans = index_word_spans(text, self._analyser.version, select)
        return sorted(MatchedWord(start, end, by_word[word]) for start, end, word in spans)

    def _weights_in(self, stems: set[str]) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Returns the weights of a text with these stems."""
        found = {stem: list(own) for stem, own in self._weights.items() if stem in stems}
        for words in self._together:
            if stems.issuperset(words):
                for stem, own in words.items():
                    known = found.setdefault(stem, [])
                    if all(own[0] != number for number, _ in known):
                        known.append(own)
        return found


def merged_spans(words: Iterable[MatchedWord]) -> list[tuple[int, int]]:
    """Returns the places of words that are in order, overlapping ones as one."""
    spans: list[tuple[int, int]] = []
    for start, end, _ in words:
        if spans and start < spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], end)
        else:
            spans.append((start, end))
    return spans
