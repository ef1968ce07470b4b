"""Completions of what somebody types, from the titles of a segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Suggestion
from retrieval.index.lexical.text_analysis import split_words, word_spans
from retrieval.index.protocols import Documents, WordIndex

# Titles that are read to choose the best.
_POOL = 256


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
    rows = words.complete(text, max(_POOL, limit), allow).astype(np.int64)
    documents = items.documents_of(rows).tolist()
    found: dict[int, Suggestion] = {}
    for row, document in zip(rows.tolist(), documents, strict=True):
        if document not in found:
            title = items.title(document)
            start = 1.0 if _begins(split_words(title), typed) else 0.0
            score = start + words.popularity(row)
            found[document] = Suggestion(id=items.id(document), title=title, score=score, spans=())
    best = sorted(found.values(), key=suggestion_order)[:limit]
    return [replace(one, spans=_typed_spans(one.title, typed)) for one in best]


def suggestion_order(one: Suggestion) -> tuple[float, int, str]:
    """Returns a sort key: titles that begin with the text, popular ones, short ones."""
    return -one.score, len(one.title), one.id


def _begins(title: Sequence[str], typed: Sequence[str]) -> bool:
    """Returns whether a title begins with what was typed, the last word of which may go on."""
    return " ".join(title).startswith(" ".join(typed))


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
