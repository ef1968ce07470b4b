"""The evidence for a question: the chunks found, as documents with sentences and stored offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from generation.evidence.sentence_features import EvidenceDocument
from nearline.contract import Hit
from nearline.sentences import sentences

# Of the shorter one's words, so many in common: the same text twice, with another date or id.
_DUPLICATE_RATIO = 0.9


class Passage(NamedTuple):
    """A sentence of the evidence: code points start..end-1 of its document's stored text."""

    document: int
    chunk: int
    start: int
    end: int
    text: str


class Span(NamedTuple):
    """What one citation is for: neighbouring sentences of one source."""

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

    number: Its marker, from 1. source: Index of its source. chunk: Its number in the document.
    passages: Its sentences, neighbours all, at least one.
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
        """Returns the chunk of a number that a passage names."""
        return next(hit for hit in self.chunks if hit.chunk == number)

    def text(self, span: Span) -> str:
        """Returns the stored text of a span."""
        chunk = self.chunk(span.passages[0].chunk)
        return (chunk.text or "")[span.start - chunk.start : span.end - chunk.start]

    def document(self) -> EvidenceDocument:
        """Returns the document as `scoring` wants it: with offsets of its own."""
        spans, at = [], 0
        for passage in self.passages:
            spans.append((at, at + len(passage.text)))
            at += len(passage.text) + 1
        text = " ".join(passage.text for passage in self.passages)
        return EvidenceDocument(self.best.title or "", text, self.best.score, spans)


def group_sources(hits: Sequence[Hit], documents: int) -> list[EvidenceSource]:
    """Puts the chunks of a document together, and leaves near copies out.

    Args:
        hits: Chunks with title and text, best first.
        documents: Most documents to keep.
    Returns: By their best chunk, best first. Sentences that chunks share stand once; a document
        that says what a better one says, almost word for word, is left out.
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
            passage = Passage(
                document, hit.chunk, hit.start + start, hit.start + end, text[start:end]
            )
            # Chunks overlap by whole sentences: what begins before the end of the last is known.
            if not found or passage.start >= found[-1].end:
                found.append(passage)
    return found


def _share(words: frozenset[str], others: frozenset[str]) -> float:
    shorter = min(len(words), len(others))
    return len(words & others) / shorter if shorter else 0.0
