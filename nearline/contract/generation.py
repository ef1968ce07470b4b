"""Questions to the generation service, and the events of its answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from nearline.contract.records import Hit, ReplyInfo, ServedBy
from nearline.contract.terms import DEFAULT_COLLECTION, SearchMode
from nearline.filters import Filter

MAX_ANSWER_TOKENS = 4_096
MAX_EVIDENCE_DOCUMENTS = 50


class RefusalReason(Enum):
    """Why there is no answer; see RefusalEvent in generation.proto."""

    OFF_TOPIC = "off_topic"
    NO_EVIDENCE = "no_evidence"


class Verdict(Enum):
    """What became of a citation; see CitationCheck in generation.proto."""

    VALID = "valid"
    MOVED = "moved"
    CHANGED = "changed"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question; see GenerateRequest in generation.proto for ranges.

    refuse: End with a refusal where the evidence looks too weak; else answer all the same.
    """

    text: str
    filter: Filter | None = None
    mode: SearchMode | None = None
    max_tokens: int = 256
    documents: int = 5
    refuse: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found: the first event. documents: each with its best chunk, best first."""

    documents: Sequence[Hit]
    info: ReplyInfo


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer, markers such as "[1]" included."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A span of a stored text: code points start..end-1, and the SHA-256 of their UTF-8 in hex."""

    number: int
    document_id: str
    chunk: int
    start: int
    end: int
    text_hash: str
    snapshot_id: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of an answer."""

    tokens: int
    citations: int
    evidence_probability: float
    calibrated: bool
    truncated: bool = False
    served_by: ServedBy = field(default_factory=ServedBy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The end where there is no answer."""

    reason: RefusalReason
    topic_probability: float
    evidence_probability: float
    calibrated: bool
    message: str


AnswerEvent: TypeAlias = Evidence | Delta | Citation | Done | Refusal


@dataclass(frozen=True, slots=True)
class CitationCheck:
    """What became of a citation, and where its text stands now (VALID and MOVED, else 0)."""

    verdict: Verdict
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReply:
    """One check per citation, in order."""

    checks: Sequence[CitationCheck]
    info: ReplyInfo


class Generator(Protocol):
    """Answers questions; satisfied by the service object and by the client alike."""

    def generate(
        self,
        question: Question,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> AsyncIterator[AnswerEvent]:
        """Answers a question: `Evidence`, then `Delta` and `Citation`, then `Done` or `Refusal`.

        Raises: whatever retrieval raises, before the first event; InvalidRequest: the question is
            malformed.
        """
        ...

    async def verify(
        self,
        citations: Sequence[Citation],
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> VerifyReply:
        """Checks 1..1024 citations against what is served now."""
        ...
