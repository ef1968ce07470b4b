"""The analyser of each language, with its stop words."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval.index.lexical.text_analysis import Analyser, split_words

# Names of the lists in bm25s.
_LISTS = {
    "danish": "STOPWORDS_DANISH",
    "dutch": "STOPWORDS_DUTCH",
    "english": "STOPWORDS_EN_PLUS",
    "french": "STOPWORDS_FRENCH",
    "german": "STOPWORDS_GERMAN",
    "italian": "STOPWORDS_ITALIAN",
    "norwegian": "STOPWORDS_NORWEGIAN",
    "portuguese": "STOPWORDS_PORTUGUESE",
    "russian": "STOPWORDS_RUSSIAN",
    "spanish": "STOPWORDS_SPANISH",
    "swedish": "STOPWORDS_SWEDISH",
    "turkish": "STOPWORDS_TURKISH",
}


def analyser_of(language: str) -> Analyser:
    """Returns the analyser of a language, with its stop words if there is a list of them.

    Raises: InvalidRequest: an unknown language.
    """
    # Lists contain forms such as "aren't", which texts split into "aren" and "t".
    words = {word for entry in _stop_words(language) for word in split_words(entry)}
    if language == "english":
        # "he'd" and "can't" must not make searches ignore "vitamin D" and "T cells".
        words = {word for word in words if len(word) > 1} | {"a"}
    return Analyser(language, words)


def _stop_words(language: str) -> Sequence[str]:
    try:
        # Imported late: only builders need it, and routers that create collections.
        from bm25s import stopwords
    except ImportError:
        # The first compaction of a collection, in a builder, adds them.
        return ()
    words: Sequence[str] = getattr(stopwords, _LISTS[language]) if language in _LISTS else ()
    return words
