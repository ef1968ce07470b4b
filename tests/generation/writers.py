"""Writers with a script, and evidence to write from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from generation.evidence.evidence_reader import Found
from generation.evidence.sources import Source, Span, sources
from generation.protocols.chat_model import ChatError
from generation.protocols.writer import Said, Task, Writing, Written
from nearline import contract as c

TEXTS = {
    "kettle": "The kettle boils water in 3 minutes. Descale it every month.",
    "lamp": "The lamp takes two batteries. It glows for 9 hours.",
}


def evidence() -> list[Source]:
    hits = [
        c.Hit(id=id, score=1.0 - at / 10, end=len(text), title=f"{id} manual", text=text)
        for at, (id, text) in enumerate(TEXTS.items())
    ]
    return sources(hits, 5)


def span(source: int, first: int, last: int | None = None) -> Span:
    passages = evidence()[source].passages
    return Span(passages[first : (first if last is None else last) + 1])


def said(text: str, *spans: Span, problems: Sequence[str] = ()) -> Said:
    return Said(text, spans, [0.5] * len(spans), problems)


def task(timeout_s: float | None = None) -> Task:
    found = Found("how?", None, evidence())  # type: ignore[arg-type]
    return Task(
        question="how?",
        history=(),
        found=found,
        scores=np.zeros(4),
        max_tokens=256,
        timeout_s=timeout_s,
    )


class Scripted:
    """Writes what it is given: pieces, failures, an end; an event is waited for."""

    def __init__(self, name: str, *parts: Writing | ChatError | asyncio.Event) -> None:
        self.name = name
        self.tasks: list[Task] = []
        self.closed = False
        self._parts = parts

    async def write(self, task: Task) -> AsyncGenerator[Writing, None]:
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


END = Written(False, 100, 20)
