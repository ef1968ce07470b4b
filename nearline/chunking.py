"""Division of a text into chunks of whole sentences, as code point offsets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nearline.sentences import Span, estimate_tokens, sentences, token_starts

_WORD = re.compile(r"\S+")


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
    pieces = [
        (start, end, tokens)
        for sentence in sentences(text)
        for start, end, tokens in _fitting(text, sentence, max_tokens)
    ]
    if not pieces:
        return [(0, len(text))]
    chunks: list[Span] = []
    first = 0
    total = 0
    for number, (_, _, tokens) in enumerate(pieces):
        if total + tokens > max_tokens:
            chunks.append((pieces[first][0], pieces[number - 1][1]))
            first = max(number - overlap_sentences, first + 1)
            total = sum(piece[2] for piece in pieces[first:number])
            while total + tokens > max_tokens:
                total -= pieces[first][2]
                first += 1
        total += tokens
    chunks.append((pieces[first][0], pieces[-1][1]))
    return chunks


def _fitting(text: str, sentence: Span, max_tokens: int) -> Iterator[tuple[int, int, int]]:
    """Yields (start, end, tokens) of a whole sentence, or of runs of its words that fit."""
    start, end = sentence
    tokens = estimate_tokens(text[start:end])
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


def _word_pieces(text: str, word: Span, max_tokens: int) -> Iterator[tuple[int, int, int]]:
    starts = list(token_starts(text, *word))
    for first in range(0, len(starts), max_tokens):
        after = first + max_tokens
        end = starts[after] if after < len(starts) else word[1]
        yield starts[first], end, min(max_tokens, len(starts) - first)
