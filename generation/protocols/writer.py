"""The protocol of writers: the extractive writer and language models."""

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
    """The task of a writer.

    question: The question, completed from the conversation. history: Earlier turns, oldest first,
    within a budget. scores: (n,) logit of each unit of the evidence. timeout_s:
    Seconds for the whole answer; None if there is no limit. mark: Whether unsupported sentences
    are sent with a mark instead of being left out. may_decline: Whether the writer may end the
    answer by saying that the evidence does not answer the question. closest: Whether to show the
    closest passages instead of an answer.
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
    closest: bool = False


class AnswerPiece(NamedTuple):
    """A piece of an answer whose sources were checked: usually a sentence.

    text: Text without markers, with the space before it. spans: Its sources, in the order in which
    it names them. support: Support by each span, 0..1. problems: Why the evidence does not support
    it; empty if it does.
    """

    text: str
    spans: Sequence[Span]
    support: Sequence[float]
    problems: Sequence[str] = ()


class WriterEnd(NamedTuple):
    """The end of an answer.

    length: Whether it ended at `max_tokens`. dropped_sentences, dropped_markers: Number that the
    checks removed. declined: Whether the writer says that the evidence does not answer the
    question.
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
        """The name in requests, metrics and replies."""
        ...

    def write(self, task: AnswerTask) -> AsyncGenerator[WriterEvent, None]:
        """Returns pieces, then exactly one `WriterEnd`; closing it stops the work.

        Raises: ChatError: at any point.
        """
        ...
