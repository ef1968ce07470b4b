"""Division of a text into chunks of whole sentences, as code point offsets."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from nearline.sentences import Span, count_tokens, iterate_sentences, token_starts

_WORD = re.compile(r"\S+")


# A sentence, or as many of its words as fit: start, end, number of tokens.
_Piece: TypeAlias = tuple[int, int, int]


def chunk_spans(text: str, max_tokens: int, overlap_sentences: int = 0) -> list[Span]:
    """Divides a text into chunks of whole sentences.

    Args:
        text: Any text.
        max_tokens: Most tokens in a chunk, by `estimate_tokens`; 0 makes the whole text one chunk.
        overlap_sentences: Sentences that the next chunk repeats; fewer if they and the next
            sentence together exceed the limit.
    Returns: (start, end) per chunk, start ascending; a chunk is text[start:end]. A sentence over
        the limit is split between words, a word over the limit between characters. A text of
        white space is one chunk, (0, len(text)).
    """
    if max_tokens == 0:
        return [(0, len(text))]
    chunks: list[Span] = []
    # The pieces of the current chunk. A text may have a piece for every other character, so that
    # not all are held at once.
    current: deque[_Piece] = deque()
    total = 0
    for sentence in iterate_sentences(text):
        for piece in _fitting(text, sentence, max_tokens):
            tokens = piece[2]
            if total + tokens > max_tokens:
                chunks.append((current[0][0], current[-1][1]))
                kept = min(overlap_sentences, len(current) - 1)
                while len(current) > kept or total + tokens > max_tokens:
                    total -= current.popleft()[2]
            current.append(piece)
            total += tokens
    if current:
        chunks.append((current[0][0], current[-1][1]))
    return chunks or [(0, len(text))]


def _fitting(text: str, sentence: Span, max_tokens: int) -> Iterator[_Piece]:
    """Yields a whole sentence, or runs of its words that fit."""
    start, end = sentence
    tokens = count_tokens(text, start, end, max_tokens)
    if tokens <= max_tokens:
        yield start, end, tokens
        return
    total = 0
    run_start = run_end = start
    for word in _WORD.finditer(text, start, end):
        for piece_start, piece_end, tokens in _word_pieces(text, word.span(), max_tokens):
            if total and total + tokens > max_tokens:
                yield run_start, run_end, total
                total = 0
            if not total:
                run_start = piece_start
            total += tokens
            run_end = piece_end
    yield run_start, run_end, total


def _word_pieces(text: str, word: Span, max_tokens: int) -> Iterator[_Piece]:
    starts = token_starts(text, *word)
    first = next(starts, None)
    while first is not None:
        tokens = 1 + sum(1 for _ in islice(starts, max_tokens - 1))
        after = next(starts, None)
        yield first, word[1] if after is None else after, tokens
        first = after
