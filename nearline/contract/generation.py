"""Questions to the generation service, and the events of its answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from nearline.contract.records import Hit, ReplyInfo, ServedBy
from nearline.contract.sessions import Session, SessionState, Turn
from nearline.contract.terms import DEFAULT_COLLECTION, SearchMode
from nearline.filters import Filter

MAX_ANSWER_TOKENS = 4_096
MAX_EVIDENCE_DOCUMENTS = 50
MAX_HISTORY_TURNS = 100
MAX_TEMPERATURE = 2.0


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


class Unsupported(Enum):
    """What to do with a sentence that the evidence does not support."""

    DROP = "drop"
    MARK = "mark"


class Finish(Enum):
    """How an answer ended; see DoneEvent in generation.proto."""

    COMPLETE = "complete"
    LENGTH = "length"
    INTERRUPTED = "interrupted"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question; see GenerateRequest in generation.proto for ranges.

    refuse: End with a refusal where the evidence looks too weak; else answer all the same.
    session_id: Conversation to go on with; empty: none. session_version: That the caller has seen;
    0: any. history: Turns before, where the caller keeps them. backend: Who writes; empty: the
    service chooses. fresh: Do not answer from the cache.
    """

    text: str
    filter: Filter | None = None
    mode: SearchMode | None = None
    max_tokens: int = 256
    documents: int = 5
    refuse: bool = True
    session_id: str = ""
    session_version: int = 0
    history: Sequence[Turn] = ()
    backend: str = ""
    temperature: float = 0.0
    unsupported: Unsupported = Unsupported.DROP
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found: the first event.

    documents: Each with its best chunk, best first. condensed: What was looked for, where the
    conversation made it differ from the question.
    """

    documents: Sequence[Hit]
    info: ReplyInfo
    condensed: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer, markers such as "[1]" included; problems: why it is unsupported."""

    text: str
    unsupported: bool = False
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A span of a stored text: code points start..end-1, and the SHA-256 of their UTF-8 in hex.

    support: How far it supports what was said, 0..1; 1: word for word.
    """

    number: int
    document_id: str
    chunk: int
    start: int
    end: int
    text_hash: str
    snapshot_id: str
    title: str = ""
    support: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A try of a backend; failure is empty where it wrote to its end."""

    backend: str
    failure: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer took; times in seconds, cost in the currency of the service's price list."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    retrieval_s: float = 0.0
    first_delta_s: float = 0.0
    total_s: float = 0.0
    attempts: Sequence[Attempt] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of an answer."""

    tokens: int
    citations: int
    evidence_probability: float
    calibrated: bool
    truncated: bool = False
    finish: Finish = Finish.COMPLETE
    dropped_sentences: int = 0
    dropped_markers: int = 0
    session: SessionState | None = None
    served_by: ServedBy = field(default_factory=ServedBy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The end where there is no answer."""

    reason: RefusalReason
    topic_probability: float
    evidence_probability: float
    calibrated: bool
    message: str
    session: SessionState | None = None


AnswerEvent: TypeAlias = Evidence | Delta | Citation | Usage | Done | Refusal


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
        """Answers: `Evidence`, then `Delta` and `Citation`, then `Usage`, and `Done` or `Refusal`.

        Raises: before the first event only: whatever retrieval raises; InvalidRequest: the question
            is malformed; Conflict: the session has another version; NotReady: sessions are away;
            Unsupported: there are none.
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

    async def session(
        self,
        session_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> Session:
        """Returns all that is remembered of a conversation.

        Raises: NotFound: nothing is. NotReady: sessions are away. Unsupported: there are none.
        """
        ...

    async def delete_session(
        self,
        session_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> bool:
        """Forgets a conversation; tells whether there was one. Raises: as `session`."""
        ...
