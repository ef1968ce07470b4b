"""A `ChatModel` for any OpenAI-compatible server: vLLM, llama.cpp, Ollama, hosted APIs."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import NamedTuple, TypeVar, cast

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from generation.protocols.chat_model import (
    ChatEnd,
    ChatError,
    ChatEvent,
    ChatFailure,
    ChatLimits,
    Prompt,
)
from nearline.sentences import estimate_tokens

# Clients before 3.30 log whole requests at DEBUG, with the question.
logging.getLogger("openai").setLevel(logging.INFO)

# Maximum tokens that a chat template adds around each message.
_TEMPLATE_TOKENS = 8
# The usage follows the finish reason; an answer waits at most this long for it.
_USAGE_WAIT_S = 1.0
# The client requires a key; servers without authentication ignore it.
_NO_KEY = "none"
_STOPPED = frozenset({"stop", "eos_token", "stop_sequence"})
_STATUS = re.compile(r"[45][0-9]{2}")
_HTTP_LIBRARIES = ("httpx", "httpx2")
_END = object()

_T = TypeVar("_T")
# Codes, types and phrases of OpenAI, Azure, vLLM, llama.cpp, Ollama, LiteLLM and OpenRouter.
_QUOTA = re.compile(
    r"insufficient_(?:quota|balance|funds)|\bquota\b|usage limit|billing|out of credits?"
    r"|insufficient (?:balance|credits?|funds)|credit balance"
)
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|context (?:length|window|size)|maximum context"
    r"|prompt is too long|input is too long"
)
# Cannot match a path, a key or a text of the user.
_CODE = re.compile(r"[A-Za-z_]{3,40}")
_DAY_S = 86_400.0


class Timeouts(NamedTuple):
    """Seconds until the connection, until the first text after the call, and between texts."""

    connect_s: float = 2.0
    first_text_s: float = 20.0
    between_texts_s: float = 10.0


class OpenAIChat:
    """A model behind /v1/chat/completions; one request per `write`, never repeated.

    Always streams, because llama.cpp completes an unstreamed answer even after the caller has
    disconnected.

    Args:
        name: See `ChatModel.name`.
        base_url: "http://host:port/v1".
        model: Name of the model on the server.
        api_key: Empty if the server requires none.
        context_tokens: Maximum tokens of prompt and answer together. Checked before sending,
            because some servers return an empty reply if it is exceeded.
        timeouts: Timeouts of the phases; `ChatLimits.timeout_s` bounds the whole request.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        model: str,
        api_key: str = "",
        *,
        context_tokens: int = 4096,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._context_tokens = context_tokens
        self._timeouts = timeouts or Timeouts()
        self._client = openai.AsyncOpenAI(
            api_key=api_key or _NO_KEY,
            base_url=base_url,
            max_retries=0,
            # The client's other timeouts apply per read, which a slow stream never reaches, so
            # `_Answer` has its own.
            timeout=openai.Timeout(None, connect=self._timeouts.connect_s),
            # Key and prompt are for this server only.
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )
        # The client reads these from the environment and would send them to any server.
        self._client.organization = self._client.project = None

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def write(self, prompt: Prompt, limits: ChatLimits) -> AsyncGenerator[ChatEvent, None]:
        """Streams an answer; see `ChatModel.write`.

        Raises: ChatError: with any kind of failure except OPEN.
        """
        needed = prompt.tokens + _TEMPLATE_TOKENS * len(prompt.messages) + limits.max_tokens
        if needed > self._context_tokens:
            raise ChatError(
                ChatFailure.TOO_LONG,
                f"prompt and answer need about {needed:,} tokens; "
                f"the context holds {self._context_tokens:,}",
            )
        answer = _Answer(limits.timeout_s, self._timeouts)
        stream = await answer.wait_for(self._send(prompt, limits))
        try:
            while (event := await answer.next_of(stream)) is not _END:
                if text := answer.take(event):
                    yield text
            if answer.finish is None:
                # The client considers such a reply complete, but llama.cpp then closes the
                # connection, and the next request on it would fail.
                network = stream.response.extensions.get("network_stream")
                if network is not None:
                    await network.aclose()
        finally:
            await stream.close()
        yield answer.end(prompt)

    async def _send(
        self, prompt: Prompt, limits: ChatLimits
    ) -> openai.AsyncStream[ChatCompletionChunk]:
        # The client has one message type per role.
        messages = [{"role": one.role, "content": one.text} for one in prompt.messages]
        return await self._client.chat.completions.create(
            model=self._model,
            messages=cast(list[ChatCompletionMessageParam], messages),
            # llama.cpp ignores max_completion_tokens and would not limit the answer.
            max_tokens=limits.max_tokens,
            temperature=limits.temperature,
            stream=True,
            stream_options={"include_usage": True},
        )


class _Answer:
    """The received part of an answer, and the deadline of its next part.

    Args:
        timeout_s: Timeout of the whole answer.
        timeouts: Timeouts of the phases.
    """

    def __init__(self, timeout_s: float, timeouts: Timeouts) -> None:
        self.finish: str | None = None
        self._events = 0
        self._texts: list[str] = []
        self._prompt_tokens = self._completion_tokens = 0
        self._between_s = timeouts.between_texts_s
        self._now = asyncio.get_running_loop().time
        start = self._now()
        self._deadline = start + timeout_s
        # None while the consumer works: its time does not count against the server, so the deadline
        # is set at the next wait.
        self._next_by: float | None = start + timeouts.first_text_s

    async def wait_for(self, step: Awaitable[_T]) -> _T:
        """Waits for a step until its deadline, and classifies each failure.

        Raises: ChatError: its `__cause__` is always empty, because the client's errors may quote
            the prompt.
        """
        if self._next_by is None:
            self._next_by = self._now() + self._between_s
        by, late = self._next_by, ChatFailure.STALLED if self._texts else ChatFailure.TIMEOUT
        if self._deadline < by:
            by, late = self._deadline, ChatFailure.DEADLINE
        try:
            async with asyncio.timeout_at(by):
                return await step
        except TimeoutError:
            raise ChatError(late, f"timed out after {len(self._texts)} texts") from None
        except openai.APIStatusError as error:
            raise map_error(error.status_code, error.body, error.response.headers) from None
        except openai.APIConnectionError as error:
            raise self._broken(error.__cause__ or error) from None
        except openai.APIError as error:
            # An error within a stream; some servers set its code to the matching HTTP status.
            code = str(error.code or "")
            status = int(code) if _STATUS.fullmatch(code) else 500
            raise map_error(status, error.body, {}) from None
        except (ValueError, RecursionError) as error:
            # Malformed JSON or UTF-8, or a number with too many digits.
            raise ChatError(
                ChatFailure.MALFORMED, f"an event is no JSON ({type(error).__name__})"
            ) from None
        except Exception as error:
            # Clients before 3.30 do not wrap the errors of their HTTP library within a stream.
            if type(error).__module__ not in _HTTP_LIBRARIES:
                raise
            raise self._broken(error) from None

    def _broken(self, cause: BaseException) -> ChatError:
        failure = ChatFailure.CUT if self._texts else ChatFailure.CONNECTION
        return ChatError(failure, f"the connection failed ({type(cause).__name__})")

    async def next_of(self, stream: openai.AsyncStream[ChatCompletionChunk]) -> object:
        """Returns the next event, or _END; errors after the finish reason are ignored."""
        try:
            return await self.wait_for(anext(stream, _END))
        except ChatError:
            if self.finish is None:
                raise
            return _END

    def take(self, event: object) -> str:
        """Returns the text of an event, possibly empty; the client has not validated the event."""
        self._events += 1
        usage = getattr(event, "usage", None)
        self._prompt_tokens = _count(usage, "prompt_tokens") or self._prompt_tokens
        self._completion_tokens = _count(usage, "completion_tokens") or self._completion_tokens
        choices = getattr(event, "choices", [])
        if self.finish is not None or choices in (None, []):
            return ""
        choice = choices[0] if isinstance(choices, list) else None
        text = getattr(getattr(choice, "delta", None), "content", None) or ""
        finish = getattr(choice, "finish_reason", None)
        if choice is None or not isinstance(text, str) or not isinstance(finish, str | None):
            raise ChatError(ChatFailure.MALFORMED, "an event has no choice with text")
        if text:
            self._texts.append(text)
            self._next_by = None
        if finish is not None:
            self.finish = finish
            self._next_by, self._between_s = None, _USAGE_WAIT_S
        return text

    def end(self, prompt: Prompt) -> ChatEnd:
        """Returns the end of a successful answer.

        Raises: ChatError: the answer was not successful.
        """
        if not self._events:
            raise ChatError(ChatFailure.MALFORMED, "the reply has no events")
        if self.finish is None:
            raise ChatError(ChatFailure.CUT, f"no finish reason after {len(self._texts)} texts")
        if self.finish == "content_filter":
            raise ChatError(ChatFailure.REFUSED_REQUEST, "the server's filter stopped the answer")
        if self.finish != "length" and self.finish not in _STOPPED:
            raise ChatError(ChatFailure.CUT, "the finish reason is unknown")
        text = "".join(self._texts)
        if not text.strip():
            raise ChatError(ChatFailure.EMPTY, "the answer has no text")
        # llama.cpp sends no usage in a stream, but one text per token.
        counted = max(len(self._texts), estimate_tokens(text))
        return ChatEnd(
            length=self.finish == "length",
            prompt_tokens=self._prompt_tokens or prompt.tokens,
            completion_tokens=self._completion_tokens or counted,
        )


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, 0)
    return value if isinstance(value, int) and value > 0 else 0


def map_error(status: int, body: object, headers: Mapping[str, str]) -> ChatError:
    """Returns the error that a reply stands for.

    Args:
        status: HTTP status, 400 or above, or the code in an error event of a stream.
        body: The object under "error", or anything else that the server sent. Its texts may quote
            the prompt, so only a one-word code is passed on.
        headers: Headers of the reply, with lower-case names.
    """
    code, said = _code_and_text(body)
    failure = _failure(status, said)
    return ChatError(
        failure,
        f"HTTP {status}{f' ({code})' if code else ''}",
        retry_after_s=parse_retry_after(headers),
    )


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the wait that a server asks for; None if the headers name none.

    Returns: Seconds, 0..86,400.
    Source: RFC 9110, 10.2.3 (seconds or a date); `retry-after-ms` is OpenAI's and Azure's.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit_s
        except ValueError:
            try:
                date = email.utils.parsedate_to_datetime(value)
            except ValueError:
                continue
            seconds = date.timestamp() - time.time()
        if not math.isnan(seconds):
            return min(max(0.0, seconds), _DAY_S)
    return None


def _failure(status: int, said: str) -> ChatFailure:
    if status == 402 or (status in (400, 403, 429) and _QUOTA.search(said)):
        return ChatFailure.QUOTA
    if status in (401, 403):
        return ChatFailure.UNAUTHORISED
    if status == 413 or (status != 429 and _TOO_LONG.search(said)):
        return ChatFailure.TOO_LONG
    if status == 429:
        return ChatFailure.RATE_LIMITED
    if status == 408 or status >= 500:
        return ChatFailure.SERVER
    return ChatFailure.REFUSED_REQUEST


def _code_and_text(body: object) -> tuple[str, str]:
    """Returns a one-word code, if there is one, and all texts that may name the cause."""
    if not isinstance(body, Mapping):
        return "", str(body).lower()
    said = [body.get(key) for key in ("code", "type", "message", "detail")]
    codes = [one for one in said[:2] if isinstance(one, str) and _CODE.fullmatch(one)]
    return codes[0] if codes else "", " ".join(str(one) for one in said if one).lower()
