"""The words of one language in a vocabulary, and which of them may stand for a word of a query.

Titles and texts have the language of the collection; an attribute may have another one. Its words
are stored after the name of that language, "\\x1fgerman\\x1fhaus", so that a stem never stands for
one of another language. No text has words with that character, and it comes before all that words
have, so these words are the first of a vocabulary.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from retrieval.index.lexical.synonyms import SYNONYM_WEIGHT, SynonymTable
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.word_forms import SimilarForm, WordForms

_SEPARATOR = "\x1f"
# A word in more chunks is not a misspelt one.
RARE = 0
# Longer queries are searched for as they are written.
_MAX_SYNONYM_WORDS = 32
# Words that may stand for a misspelt one.
MAX_SIMILAR = 16
# Share of the score of a word that resembles the one that was asked for, by the number of edits.
EDIT_WEIGHTS = (1.0, 0.7, 0.4)
# Words that begin with a last word that may go on: the most frequent ones.
MAX_STARTING = 64
# Share of their score.
PREFIX_WEIGHT = 0.9


class Alternative(NamedTuple):
    """A word, or several, that may stand for a word of the query.

    word: Its stem. number: In the vocabulary; -1 if it is not there. weight: Share of its score
    that counts. parts: Several words that stand for it where all of them are; their scores are
    added. Then `word` is their stems, with spaces.
    """

    word: str
    number: int
    weight: np.float32
    parts: tuple[Alternative, ...] = ()


class WordRange(NamedTuple):
    """Words of a vocabulary: first..stop - 1, and others."""

    first: int
    stop: int
    others: Sequence[int]


class NumberedWords(NamedTuple):
    """The words of a vocabulary, those of all languages.

    number_of: Returns the number of a word; -1 if it is not there. chunks_of: Returns the number of
    chunks with a word, by its number. word_of: Returns the word with a number. place_of: Returns
    the number of the first word that is not before a text, in order of bytes.
    """

    number_of: Callable[[str], int]
    chunks_of: Callable[[int], int]
    word_of: Callable[[int], str]
    place_of: Callable[[bytes], int]


class OtherLanguage(NamedTuple):
    """A language that attributes have, and titles and texts do not.

    analyser: Turns texts into words. forms: Words as they are written. synonyms: Optional; the
    synonyms of the snapshot, as words of this language.
    """

    analyser: Analyser
    forms: WordForms
    synonyms: SynonymTable | None = None


def prefix_of(language: str) -> str:
    """Returns what the words of a language other than the collection's are stored after."""
    return f"{_SEPARATOR}{language}{_SEPARATOR}"


class LanguageWords:
    """The words of one language; may be asked from several threads.

    Args:
        words: The vocabulary.
        analyser: Turns texts into words of the language.
        forms: Optional; without them no misspelt word is recognised.
        synonyms: Optional; synonyms of words of queries.
        prefix: See `prefix_of`; empty for the language of the collection.
    """

    def __init__(
        self,
        words: NumberedWords,
        analyser: Analyser,
        forms: WordForms | None,
        synonyms: SynonymTable | None = None,
        prefix: str = "",
    ) -> None:
        self._words = words
        self._analyser = analyser
        self._forms = forms
        self._synonyms = synonyms
        self._prefix = prefix
        self.stop_words: Collection[str] = analyser.stop_words

    def alternative(self, word: str) -> Alternative:
        """Returns a word as itself, known or not."""
        (stem,) = self._analyser.stems([word])
        return self._of_stem(stem)

    def knows(self, word: str, own: Alternative | None = None) -> bool:
        """Returns whether a word is not misspelt: it is known, or a stop word, or has synonyms.

        Args:
            word: The word.
            own: Its alternative, if it is at hand.
        """
        own = self.alternative(word) if own is None else own
        if own.number >= 0 and self._words.chunks_of(own.number) > RARE:
            return True
        # Somebody wrote a word that has synonyms on purpose.
        stem = own.word.removeprefix(self._prefix)
        return word in self.stop_words or (self._synonyms is not None and stem in self._synonyms)

    def similar_forms(self, word: str) -> list[SimilarForm]:
        """Returns the forms that resemble a word: of the fewest edits, then in most chunks."""
        similar = () if self._forms is None else self._forms.similar(word)
        return sorted(similar, key=lambda one: (one.edits, -self._words.chunks_of(one.word)))

    def similar(self, word: str) -> list[Alternative]:
        """Returns the words that a misspelt one may stand for."""
        return [
            Alternative(self._words.word_of(number), number, np.float32(EDIT_WEIGHTS[edits]))
            for edits, _, number in self.similar_forms(word)[:MAX_SIMILAR]
        ]

    def range_starting(self, prefix: str) -> WordRange:
        """Returns the words that begin with a prefix, or as one of their forms does."""
        # A form may be longer than its stem: "runni" begins a form of "run".
        others = self._forms.starting(prefix) if self._forms is not None else ()
        start = (self._prefix + prefix).encode()
        first = self._words.place_of(start)
        # After all that begin with the prefix: no UTF-8 text has this byte.
        stop = self._words.place_of(start + b"\xff")
        return WordRange(first, stop, [n for n in others if not first <= n < stop])

    def starting(self, prefix: str) -> list[Alternative]:
        """Returns the most frequent words that begin with a prefix."""
        first, stop, others = self.range_starting(prefix)
        numbers = heapq.nsmallest(
            MAX_STARTING,
            [*range(first, stop), *others],
            lambda one: (-self._words.chunks_of(one), one),
        )
        weight = np.float32(PREFIX_WEIGHT)
        return [Alternative(self._words.word_of(number), number, weight) for number in numbers]

    def begins_word(self, prefix: str) -> bool:
        """Returns whether a word, or one of its forms, begins with a prefix."""
        first, stop, others = self.range_starting(prefix)
        return first < stop or bool(others)

    def synonyms_of(self, words: Sequence[str]) -> dict[str, list[Alternative]]:
        """Returns for words of a query the synonyms that may stand for them.

        Several words with a synonym each have a part of its score, in proportion to their own
        largest scores. So a synonym counts at most as much as the words that it stands for, times
        `SYNONYM_WEIGHT`, even if it is rarer.
        """
        table = self._synonyms
        found: dict[str, list[Alternative]] = {}
        if table is None or len(words) > _MAX_SYNONYM_WORDS:
            return found
        for first, stop, synonyms in table.matches(self._analyser.stems(words)):
            own = {word: self._idf(table, self.alternative(word)) for word in words[first:stop]}
            for stems in synonyms:
                parts = [self._of_stem(stem) for stem in dict.fromkeys(stems)]
                most = max(sum(own.values()), sum(self._idf(table, part) for part in parts))
                for word, idf in own.items():
                    weight = np.float32(SYNONYM_WEIGHT * idf / most)
                    one = parts[0]._replace(weight=weight)
                    if len(parts) > 1:
                        phrase = " ".join(part.word for part in parts)
                        one = Alternative(phrase, -1, weight, tuple(parts))
                    found.setdefault(word, []).append(one)
        return found

    def _of_stem(self, stem: str) -> Alternative:
        word = self._prefix + stem
        return Alternative(word, self._words.number_of(word), np.float32(1))

    def _idf(self, table: SynonymTable, word: Alternative) -> float:
        return table.idf(self._words.chunks_of(word.number) if word.number >= 0 else 0)
