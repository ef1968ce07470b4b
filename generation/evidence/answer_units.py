"""The units of an answer: passages of the evidence that can be understood on their own.

The unit of a passage is the passage with those that it needs: a sentence that begins with "It"
needs the one before, one that ends with a colon the list or code after it, an item the sentence
that introduces its list, a term its description. The steps of a procedure stay together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from generation.evidence.sentence_features import EvidenceDocument
from generation.evidence.sources import EvidenceSource, Passage
from nearline.items.structure import Kind

# A unit grows to this many characters, and to this many passages.
_MOST_CHARACTERS, _MOST_PASSAGES = 700, 10
# A list item of at most this many characters is shown as a whole.
_SHORT_ITEM = 300
# A sentence that begins so refers to the one before.
_REFERS = re.compile(
    r"(?:it|its|this|that|these|those|they|them|their|he|she|his|her|him|such|both|neither|either"
    r"|the (?:same|latter|former)|otherwise|however|then|also|instead|therefore|thus|so|but|and"
    r"|if (?:so|not|it|this|they)|in (?:this|that|such) cases?"
    r"|for (?:this|that) (?:reason|purpose))\b(?!-)",
    re.IGNORECASE,
)
# A sentence with fewer words says too little to stand alone: "Yes.", "By default.".
_FEW_WORDS = 3
_WORD = re.compile(r"\w+")
_CONTEXT_CHARACTERS = 160


class AnswerUnit(NamedTuple):
    """Passages of one source that are shown together, in text order."""

    passages: tuple[Passage, ...]

    @property
    def document(self) -> int:
        """Index of its source."""
        return self.passages[0].document

    @property
    def text(self) -> str:
        """The passages, each list item and block of code on a line of its own."""
        parts = [self.passages[0].text]
        for passage in self.passages[1:]:
            own_line = passage.marker or passage.kind in (Kind.CODE, Kind.ROW)
            parts += ["\n" if own_line else " ", passage.text]
        return "".join(parts)


def list_units(sources: Sequence[EvidenceSource]) -> list[AnswerUnit]:
    """Returns the unit of each passage of all sources, in the order of `list_passages`."""
    return [unit for source in sources for unit in _Source(source.passages).units()]


def evidence_document(
    source: EvidenceSource, units: Sequence[AnswerUnit], ranks: Mapping[tuple[str, int], int]
) -> EvidenceDocument:
    """Returns a source for `sentence_features`.

    Args:
        source: The source.
        units: Its units.
        ranks: Rank of each chunk, by id and number.
    """
    texts = [unit.text for unit in units]
    spans, at = [], 0
    for text in texts:
        spans.append((at, at + len(text)))
        at += len(text) + 1
    return EvidenceDocument(
        source.best.title or "",
        "\n".join(texts),
        source.best.score,
        spans,
        [context_of(source, unit) for unit in units],
        [ranks[source.best.id, unit.passages[0].chunk] for unit in units],
    )


def context_of(source: EvidenceSource, unit: AnswerUnit) -> str:
    """Returns the title and the headings above a unit, for a model that reads it; one line.

    If it is long, the title and the nearest headings are kept.
    """
    title = " ".join((source.best.title or "").split())
    path = [" ".join(entry.split()) for entry in unit.passages[0].path if entry != title]
    while len(path) > 1 and len(title) + sum(map(len, path)) > _CONTEXT_CHARACTERS:
        path.pop(0)
    return ": ".join(filter(None, (title, *path)))


def label_of(source: EvidenceSource, passage: Passage) -> str:
    """Returns what a passage is about: the nearest heading or term above it, else the title."""
    return passage.path[-1] if passage.path else source.best.title or ""


class _Source:
    """The passages of one source."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        # By where the block begins, and by the block that leads to it: numbers of passages.
        self._blocks: dict[int, list[int]] = {}
        self._led: dict[int, list[int]] = {}
        for at, passage in enumerate(passages):
            self._blocks.setdefault(passage.block, []).append(at)
            if passage.lead >= 0:
                self._led.setdefault(passage.lead, []).append(at)

    def units(self) -> list[AnswerUnit]:
        """Returns the unit of each passage."""
        return [self._unit(at) for at in range(len(self._passages))]

    def _unit(self, at: int) -> AnswerUnit:
        passage = self._passages[at]
        taken = {at}
        for group in self._wanted(at):
            # As much as fits, in order; a lead or a sentence before fits or is left out.
            for number in group:
                if not self._fits(taken, number):
                    break
                taken.add(number)
        assert passage.document == self._passages[min(taken)].document
        return AnswerUnit(tuple(self._passages[number] for number in sorted(taken)))

    def _wanted(self, at: int) -> list[list[int]]:
        """Returns groups of passages that belong to one, the most needed first."""
        passage = self._passages[at]
        lead = self._lead(passage)
        if passage.kind is Kind.PARAGRAPH:
            return [self._before(at), self._after(at)]
        if passage.kind is Kind.ITEM:
            # The steps of a procedure without a lead are shown from the first one on.
            steps = [] if lead or not passage.marker[:1].isdigit() else self._steps(at)
            whole = self._whole(at) or self._before(at)
            return [whole, lead, steps or self._list(passage), self._after(at)]
        return [lead]

    def _before(self, at: int) -> list[int]:
        """Returns the sentences that a sentence refers to, the nearest first."""
        found: list[int] = []
        block = self._passages[at].block
        while at > 0 and len(found) < 2 and _REFERS.match(self._passages[at].text):
            at -= 1
            if self._passages[at].block != block:
                break
            found.append(at)
        return found

    def _lead(self, passage: Passage) -> list[int]:
        """Returns the last sentence of the block that leads to a list, table or code."""
        return self._blocks.get(passage.lead, [])[-1:]

    def _whole(self, at: int) -> list[int]:
        """Returns the sentences of a list item if it is short."""
        block = self._blocks[self._passages[at].block]
        size = sum(len(self._passages[one].text) for one in block[: _SHORT_ITEM + 1])
        return block if size <= _SHORT_ITEM else []

    def _list(self, passage: Passage) -> list[int]:
        """Returns the items of a short list with a lead, unless each is an entry of its own."""
        items = self._led.get(passage.lead, [])
        # More items than characters allowed are too long in any case.
        texts = [self._passages[at].text for at in items[: _SHORT_ITEM + 1]]
        entries = any(": " in text or ";" in text for text in texts)
        return [] if entries or sum(map(len, texts)) > _SHORT_ITEM else items

    def _steps(self, first: int) -> list[int]:
        """Returns the steps after the first one of a numbered list."""
        path = self._passages[first].path
        if first and self._passages[first - 1].path == path and self._passages[first - 1].marker:
            return []
        found = []
        for at in range(first + 1, min(first + _MOST_PASSAGES, len(self._passages))):
            one = self._passages[at]
            if one.kind is not Kind.ITEM or one.path[: len(path)] != path:
                break
            found.append(at)
        return found

    def _after(self, at: int) -> list[int]:
        """Returns what completes a passage: a list or code after a colon, or the next sentence."""
        passage = self._passages[at]
        if passage.text.endswith(":"):
            led = self._led.get(passage.block, [])
            # A term, and the first sentences of its description.
            term = passage.text.rstrip(":").strip()
            inside = [
                one
                for one in range(at + 1, min(at + 1 + _MOST_PASSAGES, len(self._passages)))
                if self._passages[one].path[-1:] == (term,)
            ]
            return led or inside[:2]
        if len(_WORD.findall(passage.text)) < _FEW_WORDS:
            return [at + 1] if self._blocks[passage.block][-1] > at else []
        return []

    def _fits(self, taken: set[int], number: int) -> bool:
        size = sum(len(self._passages[one].text) for one in taken)
        more = len(self._passages[number].text)
        return number in taken or (len(taken) < _MOST_PASSAGES and size + more <= _MOST_CHARACTERS)
