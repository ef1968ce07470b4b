"""The words of a document and of its chunks, as they are counted in snapshots and live changes.

A chunk is a document of three kinds of fields: the title and the searchable attributes of its
document, and its own text. A word that occurs in fields i f_i times counts sum(w_i f_i), and the
length of the chunk is sum(w_i l_i), with the weight w_i of each field: BM25F with one length
normalisation for all fields. Source: Robertson, Zaragoza and Taylor 2004, "Simple BM25 Extension to
Multiple Weighted Fields".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from nearline.items.search_weights import TEXT, TITLE
from retrieval.index.lexical.text_analysis import Analyser

# A word as its owner names it: a number in a snapshot that is being built, else the stem.
Word = TypeVar("Word", bound=int | str)


class TitleWords(NamedTuple, Generic[Word]):
    """The words of a title.

    words: Distinct words, with stop words and variants, by which the title is found. content:
    Number of distinct words other than these. key: See `title_key`.
    """

    words: Sequence[Word]
    content: int
    key: int


class DocumentWords(NamedTuple, Generic[Word]):
    """The part of a document that all its chunks share: its title, and the counts of its fields.

    counts: Weighted occurrences. length: Weighted number of words.
    """

    title: TitleWords[Word]
    counts: Mapping[Word, float]
    length: float


class FieldWords(NamedTuple, Generic[Word]):
    """How the texts of a field become words.

    analyser: Splits texts. word_of: Returns the word for a split word that is not a stop word.
    """

    analyser: Analyser
    word_of: Callable[[str], Word]


class WordCounter(Generic[Word]):
    """Counts the words of documents.

    Args:
        analyser: Splits texts.
        word_of: Returns the word for a split word that is not a stop word.
        weights: Weight of each field, by name: the title, and attributes. Others are not searched.
        others: For attributes in another language, by name, how their texts become words. Optional.
    """

    def __init__(
        self,
        analyser: Analyser,
        word_of: Callable[[str], Word],
        weights: Mapping[str, float],
        others: Mapping[str, FieldWords[Word]] | None = None,
    ) -> None:
        self._analyser = analyser
        self._own = FieldWords(analyser, word_of)
        self._stop_words = analyser.stop_words
        self._word_of = word_of
        self._title_weight = weights.get(TITLE, 1.0)
        self._text_weight = weights.get(TEXT, 1.0)
        words_of = others or {}
        self._attributes = [
            (name, weight, words_of.get(name, self._own))
            for name, weight in weights.items()
            if name not in (TITLE, TEXT)
        ]

    def document(self, title: str, attributes: Mapping[str, Any]) -> DocumentWords[Word]:
        """Returns the words of a document without its text."""
        split = self._analyser.split(title)
        content = [word for word in split if word not in self._stop_words]
        variants = self._analyser.variants(title)
        words = list(map(self._word_of, content))
        key = title_key(split)
        counts: dict[Word, float] = {}
        weight = self._title_weight
        length = _count(words, weight, counts)
        # Stop words of a title find it only where a query has no other words.
        others = [word for word in split if word in self._stop_words] + variants
        found_by = list(map(self._word_of, others))
        _count(found_by, weight, counts)
        for name, weight, field in self._attributes:
            value = attributes.get(name)
            values = value if isinstance(value, list | tuple) else (value,)
            for one in values:
                if isinstance(one, str):
                    length += _add(field, one, weight, counts)
        distinct = set(words)
        all_words = [*distinct, *set(found_by).difference(distinct)]
        return DocumentWords(TitleWords(all_words, len(distinct), key), counts, length)

    def chunk(self, document: DocumentWords[Word], text: str) -> tuple[Mapping[Word, float], float]:
        """Returns the weighted occurrences of each word of a chunk, and its weighted length."""
        counts = dict(document.counts)
        return counts, document.length + _add(self._own, text, self._text_weight, counts)


def title_key(words: Sequence[str]) -> int:
    """Returns a number for the split words of a title, 0..2^64 - 1; 0 if there are none.

    It does not depend on spaces: "XR-200", "xr 200" and "xr200" have the same.
    """
    if not words:
        return 0
    digest = hashlib.blake2b("".join(words).encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _add(field: FieldWords[Word], text: str, weight: float, counts: dict[Word, float]) -> float:
    """Adds the words of a text to counts; returns its weighted length."""
    analyser, word_of = field
    stop_words = analyser.stop_words
    words = [word for word in analyser.split(text) if word not in stop_words]
    length = _count(map(word_of, words), weight, counts)
    _count(map(word_of, analyser.variants(text)), weight, counts)
    return length


def _count(words: Any, weight: float, counts: dict[Word, float]) -> float:
    """Adds words to counts; returns their weighted number."""
    length = 0.0
    for word in words:
        counts[word] = counts.get(word, 0.0) + weight
        length += weight
    return length
