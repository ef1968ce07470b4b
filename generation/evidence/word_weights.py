"""Weights of the words of a question: the rarer a word is in its language, the larger.

The weight of a word must mean the same in a folder of five files and in a collection of a million,
so it is not taken from the collection where the frequencies of the language are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from generation.evidence.sentence_features import QueryTerm
from nearline.contract import Term

ENGLISH = "english"
_FREQUENCIES = Path(__file__).with_name("english_frequencies.txt")
# The weight is the idf that a word would have among passages of this many words.
_PASSAGE_WORDS = 120
# Ten times the logarithm of the occurrences, in a billion words, of a word that the table lacks.
_RARE = 25


def weigh_terms(terms: Sequence[Term], language: str) -> list[QueryTerm]:
    """Returns the words of a question with their weights, > 0.

    Args:
        terms: The words, as the search explains them.
        language: Language of the collection; the idf of others than English is that of the search.
    """
    if language != ENGLISH:
        return [QueryTerm(term.word, term.idf) for term in terms]
    frequencies = _english()
    return [QueryTerm(term.word, _weight(frequencies.get(term.word, _RARE))) for term in terms]


def is_common(stem: str) -> bool:
    """Returns whether English has the stem of a word, and not too rarely."""
    return stem in _english()


@cache
def _english() -> Mapping[str, int]:
    found: dict[str, int] = {}
    for line in _FREQUENCIES.read_text("utf-8").splitlines():
        frequency, _, words = line.partition(" ")
        if frequency != "#":
            found |= dict.fromkeys(words.split(), int(frequency))
    return found


def _weight(frequency: int) -> float:
    """Returns -ln of the probability that a passage has a word: of 120 words, 1 - (1 - p)^120."""
    share = 10 ** (frequency / 10 - 9)
    return -math.log1p(-((1 - share) ** _PASSAGE_WORDS))
