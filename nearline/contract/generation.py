"""Questions to the generation service, the events of its answers, and its protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from html import escape
from typing import Protocol, TypeAlias

from nearline.contract.records import Hit, ReplyInfo, ServedBy, source_line
from nearline.contract.sessions import Session, SessionState, Turn
from nearline.contract.tables import html_table
from nearline.contract.terms import DEFAULT_COLLECTION, Converted, FilterLike, SearchMode
from nearline.filters import Filter

MAX_ANSWER_TOKENS = 4_096
MAX_EVIDENCE_DOCUMENTS = 50
MAX_HISTORY_TURNS = 100
MAX_TEMPERATURE = 2.0


class RefusalReason(Enum):
    """Why there is no answer; see RefusalEvent in generation.proto."""

    OFF_TOPIC = "off_topic"
    NO_EVIDENCE = "no_evidence"
    UNCLEAR = "unclear"


class Strictness(Enum):
    """How sure the service must be to answer; see Strictness in generation.proto."""

    STRICT = "strict"
    BALANCED = "balanced"
    LENIENT = "lenient"


class Verdict(Enum):
    """Result of checking a citation; see CitationCheck in generation.proto."""

    VALID = "valid"
    MOVED = "moved"
    CHANGED = "changed"
    GONE = "gone"


class Unsupported(Enum):
    """How to treat a sentence that the evidence does not support."""

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

    refuse: Refuse if the evidence looks too weak; if False, always answer.
    session_id: Conversation to continue; empty for none. session_version: Version of the
    conversation that the caller has seen; 0 accepts any version. history: Earlier turns, if the
    caller stores them. backend: The backend that writes; if empty, the service chooses. fresh:
    Bypass the cache. min_watermark: See `Retriever`. strictness: None: what the service chooses.
    """

    text: str
    filter: Converted[Filter | None, FilterLike | None] = None  # type: ignore[assignment]
    mode: Converted[SearchMode | None, SearchMode | str | None] = None  # type: ignore[assignment]
    max_tokens: int = 256
    documents: int = 5
    refuse: bool = True
    session_id: str = ""
    session_version: int = 0
    history: Sequence[Turn] = ()
    backend: str = ""
    temperature: float = 0.0
    unsupported: Converted[Unsupported, Unsupported | str] = Unsupported.DROP  # type: ignore[assignment]
    fresh: bool = False
    min_watermark: bytes = b""
    strictness: Converted[Strictness | None, Strictness | str | None] = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The retrieved evidence: the first event.

    documents: The documents found, each with its best chunk, best first. condensed: The search
    query, if it differs from the question because of the conversation.
    """

    documents: Sequence[Hit]
    info: ReplyInfo
    condensed: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer, including markers such as "[1]". problems: Why it is unsupported."""

    text: str
    unsupported: bool = False
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A span of a stored text: code points char_start..char_end-1, and the SHA-256 of their UTF-8.

    text_hash: The hash in hex. support: How well it supports the sentence, 0..1; 1 for a literal
    quotation. start, end: Former names of char_start and char_end.
    """

    number: int
    document_id: str
    chunk: int
    char_start: int
    char_end: int
    text_hash: str
    snapshot_id: str
    title: str = ""
    support: float = 1.0

    @property
    def start(self) -> int:
        """See `char_start`."""
        return self.char_start

    @property
    def end(self) -> int:
        """See `char_end`."""
        return self.char_end


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a backend; failure is empty if it succeeded."""

    backend: str
    failure: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Resources of an answer; times in seconds, cost in the currency of the price list."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    retrieval_s: float = 0.0
    first_delta_s: float = 0.0
    total_s: float = 0.0
    attempts: Sequence[Attempt] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The last event of an answer.

    not_sure: Whether the text is no answer, but says that the documents may not answer the question
    and shows the closest passages.
    """

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
    not_sure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The last event of a question that is not answered."""

    reason: RefusalReason
    topic_probability: float
    evidence_probability: float
    calibrated: bool
    message: str
    session: SessionState | None = None


AnswerEvent: TypeAlias = Evidence | Delta | Citation | Usage | Done | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, passages that may not be one (see `not_sure`), or a refusal.

    text: The answer, with markers such as "[1]"; empty if refused. refusal: Why there is no answer;
    None if there is one. done: How the answer ended; None if refused.
    """

    text: str
    citations: Sequence[Citation]
    refusal: Refusal | None
    evidence: Evidence
    usage: Usage
    done: Done | None

    @property
    def not_sure(self) -> bool:
        """Whether the text is no answer, but the closest passages, and says so."""
        return self.done is not None and self.done.not_sure

    def __str__(self) -> str:
        """Returns the text, or the reason of the refusal in words."""
        return self.text if self.refusal is None else self.refusal.message

    def _repr_html_(self) -> str:
        sources = {
            "source": [f"[{one.number}]" for one in self.citations],
            "document": [one.document_id for one in self.citations],
            "title": [one.title for one in self.citations],
            "span": [f"{one.char_start}..{one.char_end}" for one in self.citations],
        }
        table = html_table(source_line(self.evidence.info), sources) if self.citations else ""
        return f'<p style="white-space: pre-wrap">{escape(str(self))}</p>{table}'


@dataclass(frozen=True, slots=True)
class CitationCheck:
    """The verdict on a citation, and the current span of its text (0 unless VALID or MOVED).

    start, end: Former names of char_start and char_end.
    """

    verdict: Verdict
    char_start: int = 0
    char_end: int = 0

    @property
    def start(self) -> int:
        """See `char_start`."""
        return self.char_start

    @property
    def end(self) -> int:
        """See `char_end`."""
        return self.char_end


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
        """Yields `Evidence`, then `Delta` and `Citation`, then `Usage`, then `Done` or `Refusal`.

        Raises: Before the first event only: any error of retrieval; InvalidRequest: the question is
            malformed; Conflict: the session has a different version; NotReady: the session store is
            down; Unsupported: the service stores no sessions.
        """
        ...

    async def verify(
        self,
        citations: Sequence[Citation],
        *,
        collection: str = DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> VerifyReply:
        """Checks 1..1024 citations against the current snapshot and live changes.

        min_watermark: See `Retriever`.
        """
        ...

    async def session(
        self,
        session_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> Session:
        """Returns a stored conversation.

        Raises: NotFound: it does not exist. NotReady: the session store is down. Unsupported: the
            service stores no sessions.
        """
        ...

    async def delete_session(
        self,
        session_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> bool:
        """Deletes a conversation; returns whether it existed. Raises: See `session`."""
        ...
