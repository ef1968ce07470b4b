"""Turns checked pieces of an answer into events: text with markers, and citations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from generation.checks.citations import text_hash
from generation.evidence.sources import EvidenceSource, Span
from generation.protocols.writer import AnswerPiece
from nearline import contract as c


class Citer:
    """Numbers the citations of one answer. A span that is cited twice keeps its number.

    Args:
        sources: The evidence.
        snapshot_id: Snapshot of the evidence.
        admits: Returns whether an item with these attributes may be cited; checked again here,
            independently of the search.
    """

    def __init__(
        self, sources: Sequence[EvidenceSource], snapshot_id: str, admits: Callable[[c.Hit], bool]
    ) -> None:
        self._sources = sources
        self._snapshot_id = snapshot_id
        self._admits = admits
        self._numbers: dict[tuple[int, int, int], int] = {}

    @property
    def count(self) -> int:
        """The citations so far."""
        return len(self._numbers)

    def events(self, said: AnswerPiece) -> list[c.Delta | c.Citation]:
        """Returns a delta with its markers, and the new citations.

        Returns: Nothing if a source may not be cited; the piece must then be omitted.
        """
        spans = [span for span in said.spans if self._admits(self._sources[span.source].best)]
        if said.spans and len(spans) < len(said.spans):
            return []
        markers, fresh = "", []
        for span, support in zip(spans, said.support, strict=True):
            key = (span.source, span.start, span.end)
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = len(self._numbers) + 1
                fresh.append(self._citation(number, span, support))
            marker = f"[{number}]"
            if marker not in markers:
                markers += marker
        text = f"{said.text} {markers}" if markers else said.text
        return [c.Delta(text, bool(said.problems), tuple(said.problems)), *fresh]

    def _citation(self, number: int, span: Span, support: float) -> c.Citation:
        source = self._sources[span.source]
        return c.Citation(
            number=number,
            document_id=source.best.id,
            chunk=span.passages[0].chunk,
            start=span.start,
            end=span.end,
            text_hash=text_hash(source.text(span)),
            snapshot_id=self._snapshot_id,
            title=source.best.title or "",
            support=support,
        )
