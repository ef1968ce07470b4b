"""Groups found chunks into documents, with passages and their offsets in the stored text.

A passage is a sentence of a paragraph or list item, a row of a table, or a block of code: the least
that can be cited. `answer_units` says which passages answer together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nearline.contract import Hit
from nearline.items.structure import Block, Kind, parse_blocks, path_in, titles
from nearline.sentences import Span as Bounds, sentences

# Two texts with this share of the shorter one's words in common are duplicates, which may differ in
# a date or an id.
_DUPLICATE_RATIO = 0.9


class Passage(NamedTuple):
    """A part of the evidence: code points start..end-1 of the stored text of its document.

    kind: Kind of its block. block: Where its block begins. lead: Where the block that introduces
    its block begins; -1 if there is none. path: Headings and item heads above it, outermost first.
    marker: The marker of a list item, such as "2. "; empty for its second sentence.
    """

    document: int
    chunk: int
    start: int
    end: int
    text: str
    kind: Kind = Kind.PARAGRAPH
    block: int = -1
    lead: int = -1
    path: tuple[str, ...] = ()
    marker: str = ""


class Span(NamedTuple):
    """The span of one citation: neighbouring sentences of one source."""

    passages: Sequence[Passage]

    @property
    def source(self) -> int:
        """Index of the source."""
        return self.passages[0].document

    @property
    def start(self) -> int:
        """First code point in the stored text."""
        return self.passages[0].start

    @property
    def end(self) -> int:
        """One past the last code point in the stored text."""
        return self.passages[-1].end


class PromptChunk(NamedTuple):
    """A part of a chunk that a model was shown.

    number: Number of its marker, from 1.
    source: Index of its source.
    chunk: Number of the chunk in the document.
    passages: Its sentences, which are neighbours; at least one.
    """

    number: int
    source: int
    chunk: int
    passages: Sequence[Passage]

    @property
    def start(self) -> int:
        """First code point in the stored text."""
        return self.passages[0].start

    @property
    def end(self) -> int:
        """One past the last code point in the stored text."""
        return self.passages[-1].end


@dataclass(slots=True)
class EvidenceSource:
    """A document of the evidence: its chunks, best first, and their sentences in text order."""

    chunks: Sequence[Hit]
    passages: list[Passage] = field(default_factory=list)

    @property
    def best(self) -> Hit:
        """The best chunk."""
        return self.chunks[0]

    def chunk(self, number: int) -> Hit:
        """Returns the chunk with the number of a passage."""
        return next(hit for hit in self.chunks if hit.chunk == number)

    def text(self, span: Span) -> str:
        """Returns the stored text of a span."""
        chunk = self.chunk(span.passages[0].chunk)
        return (chunk.text or "")[span.start - chunk.start : span.end - chunk.start]


def group_sources(hits: Sequence[Hit], documents: int) -> list[EvidenceSource]:
    """Groups chunks by document, and omits near duplicates.

    Args:
        hits: Chunks with title and text, best first.
        documents: Maximum number of documents.
    Returns: The documents, ordered by their best chunk. A sentence shared by chunks occurs once. A
        document that repeats a better one almost word for word is omitted.
    """
    by_id: dict[str, list[Hit]] = {}
    for hit in hits:
        by_id.setdefault(hit.id, []).append(hit)
    kept: list[EvidenceSource] = []
    seen: list[frozenset[str]] = []
    for chunks in by_id.values():
        if len(kept) == documents:
            break
        words = frozenset((chunks[0].text or "").lower().split())
        if any(_share(words, other) >= _DUPLICATE_RATIO for other in seen):
            continue
        seen.append(words)
        source = EvidenceSource(chunks)
        source.passages = _passages(len(kept), chunks)
        kept.append(source)
    return kept


def list_passages(sources: Sequence[EvidenceSource]) -> list[Passage]:
    """Returns the sentences of all sources, in the order in which they are scored."""
    return [passage for source in sources for passage in source.passages]


def _passages(document: int, chunks: Sequence[Hit]) -> list[Passage]:
    found: list[Passage] = []
    for hit in sorted(chunks, key=lambda hit: hit.start):
        text = hit.text or ""
        blocks = list(parse_blocks(text, tuple(hit.section)))
        for block in blocks:
            # A heading is near many questions and answers none; it is in the path of what follows.
            if block.kind is Kind.HEADING:
                continue
            for start, end in _parts(text, block):
                passage = Passage(
                    document,
                    hit.chunk,
                    hit.start + start,
                    hit.start + end,
                    text[start:end],
                    block.kind,
                    hit.start + block.start,
                    hit.start + blocks[block.lead].start if block.lead >= 0 else -1,
                    tuple(titles(path_in(text, block, start))),
                    text[block.line : block.start].lstrip() if start == block.start else "",
                )
                # Chunks overlap by whole sentences, so one that begins before the end of the last
                # is a repeat.
                if not found or passage.start >= found[-1].end:
                    found.append(passage)
    return found


def _parts(text: str, block: Block) -> list[Bounds]:
    """Returns the parts of a block that can be cited: sentences, a row, or code with its fences."""
    if block.kind is Kind.ROW:
        return [(block.start, block.end)]
    if block.kind is Kind.CODE:
        end = text.find("\n", block.end + 1)
        closes = text[block.end : None if end < 0 else end].strip().strip("`~") == ""
        last = block.end if not closes else len(text) if end < 0 else end
        before = text[block.line : block.end]
        return [(block.line + len(before) - len(before.lstrip()), last)]
    found = sentences(text[block.start : block.end])
    return [(block.start + start, block.start + end) for start, end in found]


def _share(words: frozenset[str], others: frozenset[str]) -> float:
    shorter = min(len(words), len(others))
    return len(words & others) / shorter if shorter else 0.0
