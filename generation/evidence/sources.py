"""Groups found chunks into documents, with sentences and their offsets in the stored text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from generation.evidence.sentence_features import EvidenceDocument
from nearline.contract import Hit
from nearline.sentences import sentences

# Two texts with this share of the shorter one's words in common are duplicates, which may differ in
# a date or an id.
_DUPLICATE_RATIO = 0.9
# A heading of Markdown, on a line of its own.
_HEADING = re.compile(r"#{1,6}[ \t][^\n]*")


class Passage(NamedTuple):
    """A sentence of the evidence: code points start..end-1 of the stored text of its document."""

    document: int
    chunk: int
    start: int
    end: int
    text: str


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

    def document(self) -> EvidenceDocument:
        """Returns the document for `sentence_features`, with offsets in its joined sentences."""
        spans, at = [], 0
        for passage in self.passages:
            spans.append((at, at + len(passage.text)))
            at += len(passage.text) + 1
        text = " ".join(passage.text for passage in self.passages)
        return EvidenceDocument(self.best.title or "", text, self.best.score, spans)


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
        for start, end in sentences(text):
            # A heading is near many questions and answers none.
            if _HEADING.fullmatch(text, start, end):
                continue
            passage = Passage(
                document, hit.chunk, hit.start + start, hit.start + end, text[start:end]
            )
            # Chunks overlap by whole sentences, so one that begins before the end of the last is a
            # repeat.
            if not found or passage.start >= found[-1].end:
                found.append(passage)
    return found


def _share(words: frozenset[str], others: frozenset[str]) -> float:
    shorter = min(len(words), len(others))
    return len(words & others) / shorter if shorter else 0.0
