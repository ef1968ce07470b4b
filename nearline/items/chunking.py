"""Division of a text into chunks along its structure, as code point offsets."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from nearline.items.structure import Block, Kind, parse_blocks
from nearline.sentences import Span, count_tokens, iterate_sentences, token_starts

_WORD = re.compile(r"\S+")
# A heading begins a chunk if the one before has this share of its tokens.
_BREAK_SHARE = 1 / 3


class _Piece(NamedTuple):
    """A sentence, or as many of its words as fit.

    starts_section: Whether it is a heading. leads: Whether it is a heading, or a sentence that ends
    with a colon, so that it belongs to what follows.
    """

    start: int
    end: int
    tokens: int
    starts_section: bool = False
    leads: bool = False


def chunk_spans(text: str, max_tokens: int, overlap_sentences: int = 0) -> list[Span]:
    """Divides a text into chunks of whole sentences, list items and lines of code.

    A heading, and a sentence that ends with a colon, stays with what follows it.

    Args:
        text: Any text; see `nearline.items.structure`.
        max_tokens: Most tokens in a chunk, by `estimate_tokens`; 0 makes the whole text one chunk.
        overlap_sentences: Sentences that the next chunk repeats; fewer if they and the next
            sentence together exceed the limit, none at a heading.
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
    for piece in _pieces(text, max_tokens):
        breaks = piece.starts_section and total >= max_tokens * _BREAK_SHARE
        if breaks or total + piece.tokens > max_tokens:
            kept = _leads_at_end(current)
            last = current[-1 - kept]
            chunks.append((current[0].start, last.end))
            if not breaks and not kept:
                kept = min(overlap_sentences, len(current) - 1)
            while len(current) > kept or total + piece.tokens > max_tokens:
                dropped = current.popleft()
                total -= dropped.tokens
                if dropped.start > last.start:
                    # A lead that does not fit beside what follows is a chunk of its own.
                    chunks.append((dropped.start, dropped.end))
        current.append(piece)
        total += piece.tokens
    if current:
        chunks.append((current[0].start, current[-1].end))
    return chunks or [(0, len(text))]


def _leads_at_end(current: deque[_Piece]) -> int:
    """Returns how many of the last pieces belong to what follows; never all of them."""
    count = 0
    for piece in islice(reversed(current), len(current) - 1):
        if not piece.leads:
            break
        count += 1
    return count


def _pieces(text: str, max_tokens: int) -> Iterator[_Piece]:
    """Yields the pieces of a text, which together cover all of it but white space."""
    known: Block | None = None
    at = 0
    for block in parse_blocks(text):
        if known is not None:
            # Fences, rules and underlines belong to the block before them.
            yield from _block_pieces(text, known, (at, block.line), max_tokens)
            at = block.line
        known = block
    yield from _block_pieces(text, known, (at, len(text)), max_tokens)


def _block_pieces(text: str, block: Block | None, span: Span, max_tokens: int) -> Iterator[_Piece]:
    """Yields the pieces of a block, or of a text without blocks, and of the signs around it."""
    kind = Kind.PARAGRAPH if block is None else block.kind
    if kind is Kind.CODE:
        yield from _code_pieces(text, span, max_tokens)
        return
    if kind in (Kind.HEADING, Kind.ROW):
        begins = kind is Kind.HEADING
        leads = begins or (block is not None and block.lead < 0)
        for piece in _fitting(text, _trimmed(text, *span), max_tokens):
            yield piece._replace(starts_section=begins, leads=leads)
        return
    start, end = span
    if block is not None and kind is Kind.ITEM:
        # Its number is no sentence.
        start = block.start
    first = True
    for sentence_start, sentence_end in iterate_sentences(text[start:end]):
        # Where an item, or a part of one, begins, its indentation is kept.
        whole = first and block is not None and (kind is Kind.ITEM or len(block.path) > 0)
        begin = max(span[0], block.line) if whole and block is not None else start + sentence_start
        leads = text[start + sentence_end - 1] == ":"
        for piece in _fitting(text, (begin, start + sentence_end), max_tokens):
            yield piece._replace(leads=leads)
        first = False


def _code_pieces(text: str, span: Span, max_tokens: int) -> Iterator[_Piece]:
    """Yields code as a whole if it fits, otherwise its lines."""
    start, end = span
    end = start + len(text[start:end].rstrip())
    tokens = count_tokens(text, start, end, max_tokens)
    if tokens <= max_tokens:
        yield _Piece(start, end, tokens)
        return
    while start < end:
        line_end = text.find("\n", start, end)
        line_end = end if line_end < 0 else line_end
        if text[start:line_end].strip():
            yield from _fitting(text, (start, line_end), max_tokens)
        start = line_end + 1


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _fitting(text: str, sentence: Span, max_tokens: int) -> Iterator[_Piece]:
    """Yields a whole sentence, or runs of its words that fit."""
    start, end = sentence
    tokens = count_tokens(text, start, end, max_tokens)
    if tokens <= max_tokens:
        yield _Piece(start, end, tokens)
        return
    total = 0
    run_start = run_end = start
    for word in _WORD.finditer(text, start, end):
        for piece_start, piece_end, tokens in _word_pieces(text, word.span(), max_tokens):
            if total and total + tokens > max_tokens:
                yield _Piece(run_start, run_end, total)
                total = 0
            if not total:
                run_start = piece_start
            total += tokens
            run_end = piece_end
    yield _Piece(run_start, run_end, total)


def _word_pieces(text: str, word: Span, max_tokens: int) -> Iterator[tuple[int, int, int]]:
    starts = token_starts(text, *word)
    first = next(starts, None)
    while first is not None:
        tokens = 1 + sum(1 for _ in islice(starts, max_tokens - 1))
        after = next(starts, None)
        yield first, word[1] if after is None else after, tokens
        first = after
