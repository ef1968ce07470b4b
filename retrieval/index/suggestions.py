"""Completions of what somebody types, from the titles of a segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Suggestion
from retrieval.index.lexical.text_analysis import split_words
from retrieval.index.lexical.text_spans import word_spans
from retrieval.index.protocols import Documents, WordIndex

# Titles that are read to choose the best.
POOL = 256
# Of a title, so many times the characters of what was typed are compared with it: accents and
# punctuation may make the beginning of a title longer.
_BEGINNING = 4


def suggest_titles(
    text: str,
    limit: int,
    items: Documents,
    words: WordIndex,
    allow: NDArray[np.bool_] | None,
) -> list[Suggestion]:
    """Returns documents whose titles complete a text, best first; see `suggestion_order`.

    Args:
        text: What was typed.
        limit: Most suggestions.
        items, words: Of the segment.
        allow: (rows,) bool, the rows to search; None means all.
    """
    typed = split_words(text)
    beginning, together = " ".join(typed), "".join(typed)
    rows = words.complete(text, max(POOL, limit), allow).astype(np.int64)
    documents = items.documents_of(rows).tolist()
    read: dict[int, tuple[float, int, str]] = {}
    begin, edge = 0, 0.0
    for row, document in zip(rows.tolist(), documents, strict=True):
        if document in read:
            continue
        popularity = words.popularity(row)
        if begin >= limit and popularity < edge:
            break  # The others are less popular than enough titles that begin with the text.
        title = items.title(document)
        title_words = split_words(title[: _BEGINNING * len(text)])
        begins = " ".join(title_words).startswith(beginning)
        whole = len(title) <= _BEGINNING * len(text) and "".join(title_words) == together
        read[document] = -(2.0 if whole else float(begins)) - popularity, len(title), title
        begin += begins or whole
        if begin == limit and (begins or whole):
            edge = popularity
    best = sorted(read.items(), key=lambda one: one[1][:2])
    if len(best) > limit:
        # Ties are ordered by id; only of these it is read.
        last = best[limit - 1][1][:2]
        best = [one for one in best if one[1][:2] <= last]
    found = [
        Suggestion(id=items.id(document), title=title, score=-score, spans=())
        for document, (score, _, title) in best
    ]
    found.sort(key=suggestion_order)
    return [replace(one, spans=_typed_spans(one.title, typed)) for one in found[:limit]]


def suggestion_order(one: Suggestion) -> tuple[float, int, str]:
    """Returns a sort key: the text itself, titles that begin with it, popular ones, short ones."""
    return -one.score, len(one.title), one.id


def _typed_spans(title: str, typed: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Returns the first and past-the-end code point of the words of a title that were typed."""
    whole, last = set(typed[:-1]), typed[-1] if typed else ""
    spans = []
    for start, end, word in word_spans(title):
        if word in whole:
            spans.append((start, end))
        elif last and word.startswith(last):
            # Folding may change the length of a word: then all of it is marked.
            spans.append((start, start + len(last) if end - start == len(word) else end))
    return tuple(spans)
