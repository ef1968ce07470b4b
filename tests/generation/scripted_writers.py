"""Scripted writers, and evidence for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from generation.evidence.evidence_reader import Evidence
from generation.evidence.sources import EvidenceSource, Span, group_sources
from generation.protocols.chat_model import ChatError
from generation.protocols.writer import AnswerPiece, AnswerTask, WriterEnd, WriterEvent
from nearline import contract as c

TEXTS = {
    "kettle": "The kettle boils water in 3 minutes. Descale it every month.",
    "lamp": "The lamp takes two batteries. It glows for 9 hours.",
}


def evidence() -> list[EvidenceSource]:
    hits = [
        c.Hit(id=id, score=1.0 - at / 10, end=len(text), title=f"{id} manual", text=text)
        for at, (id, text) in enumerate(TEXTS.items())
    ]
    return group_sources(hits, 5)


def span(source: int, first: int, last: int | None = None) -> Span:
    passages = evidence()[source].passages
    return Span(passages[first : (first if last is None else last) + 1])


def said(text: str, *spans: Span, problems: Sequence[str] = ()) -> AnswerPiece:
    return AnswerPiece(text, spans, [0.5] * len(spans), problems)


def task(timeout_s: float | None = None) -> AnswerTask:
    found = Evidence("how?", None, evidence())  # type: ignore[arg-type]
    return AnswerTask(
        question="how?",
        history=(),
        found=found,
        scores=np.zeros(4),
        max_tokens=256,
        timeout_s=timeout_s,
    )


class Scripted:
    """Writes its script of texts, failures and an end; waits for an event in it."""

    def __init__(self, name: str, *parts: WriterEvent | ChatError | asyncio.Event) -> None:
        self.name = name
        self.tasks: list[AnswerTask] = []
        self.closed = False
        self._parts = parts

    async def write(self, task: AnswerTask) -> AsyncGenerator[WriterEvent, None]:
        self.tasks.append(task)
        try:
            for part in self._parts:
                if isinstance(part, ChatError):
                    raise part
                if isinstance(part, asyncio.Event):
                    await part.wait()
                else:
                    yield part
        finally:
            self.closed = True


END = WriterEnd(False, 100, 20)
