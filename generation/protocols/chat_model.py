"""The protocol of a language model: a prompt in, pieces of text and one end out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple, Protocol, TypeAlias


class Message(NamedTuple):
    """One message of a prompt."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt for a language model.

    messages: Messages in order. version: Version of the template, part of every cache key.
    tokens: Tokens of all messages, by `nearline.sentences.estimate_tokens`.
    """

    messages: Sequence[Message]
    version: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatLimits:
    """Limits of one answer.

    max_tokens: Maximum tokens to write. temperature: 0..2. timeout_s: Seconds for the whole
    answer.
    """

    max_tokens: int
    temperature: float = 0.0
    timeout_s: float


class ChatEnd(NamedTuple):
    """A successful end: the model finished, or reached max_tokens (length).

    tokens: Tokens of the prompt and of the text; estimated if the server does not report them.
    """

    length: bool
    prompt_tokens: int
    completion_tokens: int


class ChatFailure(Enum):
    """Why a model gave no complete answer; a reason in `served_by` and metrics."""

    CONNECTION = "cannot connect"
    TIMEOUT = "no first word in time"
    STALLED = "stopped in mid-answer"
    DEADLINE = "the caller's time is up"
    RATE_LIMITED = "rate limit"
    QUOTA = "no credit left"
    UNAUTHORISED = "the key is refused"
    TOO_LONG = "the prompt is too long"
    REFUSED_REQUEST = "the request is refused"
    SERVER = "error of the server"
    MALFORMED = "malformed stream"
    CUT = "ended without a finish reason"
    EMPTY = "empty answer"
    OPEN = "left alone after failures"


class ChatError(Exception):
    """A model's failure. It stays inside this service, which tries the next writer.

    Args:
        failure: Kind of failure.
        message: Text for the log and the reason; contains no key and no user text.
        retry_after_s: Seconds that the server asks to wait; None if it does not.
    """

    def __init__(
        self, failure: ChatFailure, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.retry_after_s = retry_after_s
        # Tokens read and written before the failure, if known.
        self.prompt_tokens = 0
        self.completion_tokens = 0


ChatEvent: TypeAlias = str | ChatEnd


class ChatModel(Protocol):
    """A language model."""

    @property
    def name(self) -> str:
        """The name in settings, metrics and replies; never a path."""
        ...

    def write(self, prompt: Prompt, limits: ChatLimits) -> AsyncGenerator[ChatEvent, None]:
        """Streams pieces of text (non-empty), then exactly one `ChatEnd`.

        Closing the generator, or cancelling the task while it waits, stops the work at the server
        at once. Leaving a loop over the generator does not close it: use `contextlib.aclosing`.

        Raises: ChatError: at any point, also after pieces.
        """
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
