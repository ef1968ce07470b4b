"""Texts, queries, synonyms and languages to search with, whose words are written down by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import Stemmer
from hypothesis import strategies as st

from retrieval.index.lexical.synonym_rules import SynonymRule
from tests.retrieval.index.lexical.small_indexes import Document

# The words of TOKENS that are stop words, by language; the collection has the first one.
STOP_WORDS: Mapping[str, set[str]] = {
    "english": {"the", "who", "a"},
    "german": {"man"},
    "none": set(),
}
ENGLISH = "english"
_STEMMERS = {one: Stemmer.Stemmer(one) for one in (ENGLISH, "german")}


class Token(NamedTuple):
    """The parts of a piece of text between spaces.

    words: As texts are split. variants: Further words by which it is found. parts: The words that
    its compound stands for, and the compound. asked: Words of a query, if not `words`.
    """

    words: Sequence[str]
    variants: Sequence[str] = ()
    compound: str = ""
    asked: Sequence[str] = ()


def _plain(text: str) -> dict[str, Token]:
    return {word: Token([word.lower()]) for word in text.split()}


TOKENS: Mapping[str, Token] = {
    **_plain("apple Apples pear plum PLUMS the Who a king kings x"),
    **_plain("metallica metalica mettalica metallic metalicas megtallica"),
    **_plain("spider man spiderman spidermann mann xr xr200 200 bjork bjrok"),
    # Known parts, unknown parts, stop words.
    "spider-man": Token(["spider", "man"], ["spiderman"], "spiderman"),
    "XR-200": Token(["xr", "200"], ["xr200"], "xr200"),
    "a_king": Token(["a", "king"], ["aking"], "aking"),
    "king's": Token(["king"]),
    "Björk": Token(["bjork"], ["björk"]),
    "東京都": Token(["東", "京", "都"], ["東京", "京都"], asked=["東京", "京都"]),
    "京": Token(["京"]),
    "京都": Token(["京", "都"], ["京都"], asked=["京都"]),
    "…": Token([]),
}
# Rules of one and several words, both ways and one way, of known and misspelt words.
SYNONYMS = st.lists(
    st.sampled_from(
        [
            SynonymRule(1, ["apple", "pear", "king plum"]),
            SynonymRule(2, ["spider-man"], ["xr200", "metallica king", "the Who"]),
            SynonymRule(3, ["king plum x"], ["Björk"]),
            SynonymRule(4, ["metalica"], ["京都", "spider-man"]),
            SynonymRule(5, ["the Who"], ["a_king king"]),
            SynonymRule(6, ["x king", "200"], ["200", "XR-200"]),
        ]
    ),
    max_size=4,
)
QUERY_TEXTS = st.lists(st.sampled_from(sorted(TOKENS)), max_size=5).map(" ".join)
TITLES = st.one_of(st.just(""), QUERY_TEXTS)
_POPULARITY = st.sampled_from([0.0, 0.25, 1.0])
_LABELS = st.fixed_dictionaries(
    {}, optional={"label": QUERY_TEXTS, "labels": st.lists(QUERY_TEXTS)}
)
DOCUMENTS = st.lists(
    st.builds(
        Document, TITLES, st.lists(QUERY_TEXTS, min_size=1, max_size=2), _LABELS, _POPULARITY
    ),
    min_size=1,
    max_size=8,
)
WEIGHTS = st.sampled_from(
    [{}, {"title": 2.5, "labels": 0.75}, {"text": 0.3, "title": 1.7, "label": 1.0}]
)
LANGUAGES = st.sampled_from(
    [
        {},
        {"label": "none", "labels": "none"},
        {"label": "german", "labels": "german"},
        {"label": "english", "labels": "german"},
    ]
)


def words_of(text: str) -> list[str]:
    return [word for token in text.split() for word in TOKENS[token].words]


def variants_of(text: str) -> list[str]:
    return [word for token in text.split() for word in TOKENS[token].variants]


@lru_cache(None)
def stem(word: str, language: str = ENGLISH) -> str:
    """Returns the stem of a word; of another language than the collection's, with its name."""
    if language == "none":
        return f"none/{word}"
    found = str(_STEMMERS[language].stemWord(word))
    return found if language == ENGLISH else f"{language}/{found}"
