"""Conditions of filters on the titles and texts of documents: words, and phrases."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nearline import filters as f
from nearline.errors import InvalidRequest
from retrieval.index.filtering.attribute_table import TextMatches, without_texts
from retrieval.index.lexical.text_analysis import (
    folded,
    iter_compounds,
    split_folded,
    split_words,
)
from retrieval.index.protocols import Documents, WordIndex
from retrieval.protocols.compute_threads import check_needed

# Documents whose texts are read for all phrases of a filter, and their characters: about half a
# second. Other than positions of all words, this costs no memory, and most phrases have a rare
# word.
MAX_READ_DOCUMENTS = 50_000
MAX_READ_CHARACTERS = 32 << 20


class TextConditions:
    """Tests the conditions of one filter on the texts of a segment.

    Args:
        items: The documents.
        words: Their words.
    """

    def __init__(self, items: Documents, words: WordIndex) -> None:
        self._items = items
        self._words = words
        self._documents_read = self._characters_read = 0

    def matching(self, condition: f.TextCondition) -> NDArray[np.bool_]:
        """Returns which documents meet a condition: (documents,) bool.

        Raises: InvalidRequest: too many different words, or phrases of words that too many
            documents have. DeadlineExceeded: the result is no longer needed.
        """
        if isinstance(condition, f.Phrase):
            return self._with_phrase(condition.text)
        words = self._words.rows_with_words(condition.text, similar=condition.similar)
        if len(words) > f.MAX_WORDS:
            raise InvalidRequest(
                "a filter by WORDS, or a query with min_should_match, "
                f"has {len(words):,} different words, {f.MAX_WORDS} are allowed; use the most "
                "important ones, or leave min_should_match unset",
                field="options.filter.words",
            )
        # Without words, such as in punctuation, there is nothing that a document could have.
        needed = max(1, math.floor(condition.share * len(words) + 1e-9))
        counts = np.zeros(self._items.documents, np.uint8)
        for columns in words:
            check_needed()
            counts += self._documents(columns)
        return counts >= needed

    def _with_phrase(self, text: str) -> NDArray[np.bool_]:
        matching = np.zeros(self._items.documents, np.bool_)
        has_phrase = phrase_test(text)
        if has_phrase is None:
            return matching
        candidates = np.ones(self._items.documents, np.bool_)
        # Of stop words, the index has those of titles.
        words = self._words.rows_with_words(text, similar=False)
        if not words:
            return matching
        for columns in words:
            candidates &= self._documents(columns)
        documents = np.flatnonzero(candidates).tolist()
        self._documents_read += len(documents)
        if self._documents_read > MAX_READ_DOCUMENTS:
            raise _too_many(text, f"{self._documents_read:,} documents")
        for document in documents:
            check_needed()
            body = self._items.text(document)
            self._characters_read += len(body)
            if self._characters_read > MAX_READ_CHARACTERS:
                raise _too_many(text, f"{self._characters_read:,} characters and more")
            matching[document] = has_phrase(self._items.title(document)) or has_phrase(body)
        return matching

    def _documents(self, columns: Sequence[NDArray[np.int32]]) -> NDArray[np.bool_]:
        """Returns which documents have a row of the columns."""
        found = np.zeros(self._items.documents, np.bool_)
        for rows in columns:
            found[self._items.documents_of(rows.astype(np.int64))] = True
        return found


def text_matches(items: Documents, words: WordIndex | None) -> Callable[[], TextMatches]:
    """Returns what begins to test a filter on the texts of a segment; None: it has no words."""
    return lambda: without_texts if words is None else TextConditions(items, words).matching


def phrase_test(text: str) -> Callable[[str], bool] | None:
    """Returns a function that tells whether a text has a phrase; None if it has no words.

    Words of the phrase that a hyphen or the like joins may be one word in the text: "XR-200" is in
    "the xr200 amplifier".
    """
    words = split_words(text)
    if not words:
        return None
    joints = {
        (first, second) for parts, _ in iter_compounds(text) for first, second in pairwise(parts)
    }
    split, ascii = re.escape(words[0]), re.escape(words[0])
    for first, second in pairwise(words):
        may_join = "?" if (first, second) in joints else ""
        split += f" {may_join}{re.escape(second)}"
        ascii += f"(?:[^a-z0-9]+){may_join}{re.escape(second)}"
    in_split = re.compile(f"(?<![^ ]){split}(?![^ ])").search
    # Most texts are ASCII, and need not be split into words.
    in_ascii = re.compile(f"(?<![a-z0-9]){ascii}(?![a-z0-9])").search

    def has_phrase(body: str) -> bool:
        body = folded(body)
        if body.isascii():
            return in_ascii(body) is not None
        return in_split(" ".join(split_folded(body))) is not None

    return has_phrase


def _too_many(text: str, found: str) -> InvalidRequest:
    return InvalidRequest(
        f"up to the phrase {text!r}, the words of the phrases are together in {found} of a shard, "
        f"and {MAX_READ_DOCUMENTS:,} documents with {MAX_READ_CHARACTERS:,} characters are read at "
        "most; add rarer words to the phrases, send fewer, or search without quotes",
        field="options.filter.phrase",
    )
