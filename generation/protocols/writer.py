"""What writes answers: one protocol for sentences that are found and for models that write."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from generation.evidence.evidence_reader import Evidence
from generation.evidence.sources import Span
from nearline.contract import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTask:
    """What to write.

    question: As it stands on its own. history: Turns before, oldest first, within a budget.
    scores: (n,) logit of each sentence of all sources, in order. timeout_s: For all of it; None: no
    limit. mark: Send what the evidence does not support, marked; else leave it out. may_decline:
    The writer may say that the evidence does not answer, and that is the end.
    """

    question: str
    history: Sequence[Turn]
    found: Evidence
    scores: NDArray[np.float64]
    max_tokens: int
    temperature: float = 0.0
    timeout_s: float | None = None
    mark: bool = False
    may_decline: bool = True


class AnswerPiece(NamedTuple):
    """A piece of an answer whose sources were checked: usually a sentence.

    text: Without markers, and with the space that parts it from the piece before. spans: What it
    rests on, in the order in which it names them. support: Of each span, 0..1. problems: Why the
    evidence does not support it; empty: it does.
    """

    text: str
    spans: Sequence[Span]
    support: Sequence[float]
    problems: Sequence[str] = ()


class WriterEnd(NamedTuple):
    """The end of what was written.

    length: Whether it ended at `max_tokens`. dropped_sentences, dropped_markers: Left out by the
    checks. declined: Whether the writer says that the evidence does not answer.
    """

    length: bool
    prompt_tokens: int
    completion_tokens: int
    dropped_sentences: int = 0
    dropped_markers: int = 0
    declined: bool = False


WriterEvent: TypeAlias = AnswerPiece | WriterEnd


class Writer(Protocol):
    """Writes answers from evidence."""

    @property
    def name(self) -> str:
        """Name in requests, metrics and replies."""
        ...

    def write(self, task: AnswerTask) -> AsyncGenerator[WriterEvent, None]:
        """Returns pieces, then exactly one `WriterEnd`; closing it stops the work.

        Raises: ChatError: at any point.
        """
        ...
