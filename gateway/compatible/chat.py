"""`/v1/chat/completions` in the shape of OpenAI: answers from a collection, with citations.

The last message is the question, and those before it are the conversation. A citation is an
annotation of the text, and stands whole under `nearline`, where it can be checked later.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Literal

import orjson
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from gateway.compatible.chat_events import AnswerBuilder
from gateway.compatible.error_bodies import openai_error
from gateway.compatible.json_body import json_response, read_model
from gateway.compatible.model_names import parse_chat_model
from gateway.disconnect import unless_gone
from gateway.event_stream import begun, event_response
from gateway.gateway_calls import GatewayCalls
from gateway.json_decoder import decode
from nearline.errors import InvalidRequest, NearlineError
from nearline.v1 import generation_pb2

# Parameters that would change the answer, and their values that change nothing.
_UNSUPPORTED: Final = {"n", "tools", "functions", "response_format", "logprobs", "stop"}
_HARMLESS: Final[tuple[Any, ...]] = (None, 1, False, "", [], {"type": "text"})


class _TextPart(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: str


class _ChatMessage(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart] | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """See https://platform.openai.com/docs/api-reference/chat.

    nearline: Further fields of `GenerateRequest`, such as filter, documents and session_id.
    """

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[_ChatMessage] = Field(min_length=1, max_length=256)
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    max_tokens: int | None = Field(None, ge=1, lt=1 << 32)
    max_completion_tokens: int | None = Field(None, ge=1, lt=1 << 32)
    temperature: float | None = None
    nearline: dict[str, Any] = Field(default_factory=dict)


async def chat_completions(calls: GatewayCalls, request: Request) -> Response:
    """Answers the question in the last message."""
    asked = await read_model(calls, request, "GenerationService", ChatRequest)
    events = calls.many(request, "GenerationService", "Generate", generate_request(asked))
    # An error before the first event has a status of its own.
    first = await unless_gone(request, anext(events, None))
    builder = AnswerBuilder(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), asked.model)
    if asked.stream:
        stream = _chunks(begun(first, events), builder, asked.stream_options.include_usage)
        return event_response(stream)

    async def read() -> None:
        async for event in begun(first, events):
            builder.take(event)

    await unless_gone(request, read())
    return json_response(builder.completion())


def generate_request(asked: ChatRequest) -> generation_pb2.GenerateRequest:
    """Returns the request that a conversation stands for.

    Raises: InvalidRequest: its last message is not a question, or a parameter is not supported;
        NotFound: the model is unknown.
    """
    collection, backend = parse_chat_model(asked.model)
    for name, value in (asked.model_extra or {}).items():
        if name in _UNSUPPORTED and (value is True or value not in _HARMLESS):
            raise InvalidRequest(
                f"{name} is not supported: a request has one answer, from documents; leave it out",
                field=name,
            )
    # Instructions are those of the service: its answers are held to the documents.
    spoken = [one for one in asked.messages if one.role in ("user", "assistant")]
    if not spoken or spoken[-1].role != "user" or not spoken[-1].text.strip():
        raise InvalidRequest(
            "the last message is not a question; end messages with one of the role user",
            field="messages",
        )
    message = decode(generation_pb2.GenerateRequest, asked.nearline, "nearline")
    message.collection, message.backend = collection, backend
    message.question = spoken[-1].text
    if not message.session_id:
        message.history.extend(_turns(spoken[:-1]))
    if (tokens := asked.max_completion_tokens or asked.max_tokens) is not None:
        message.max_tokens = tokens
    if asked.temperature is not None:
        message.temperature = asked.temperature
    return message


def _turns(messages: Sequence[_ChatMessage]) -> list[generation_pb2.Turn]:
    """Returns questions with their answers; an answer without a question is left out."""
    turns: list[generation_pb2.Turn] = []
    for message in messages:
        if message.role == "user":
            turns.append(generation_pb2.Turn(question=message.text))
        elif turns:
            turns[-1].answer += message.text
    return turns


async def _chunks(
    events: AsyncIterator[Message], builder: AnswerBuilder, include_usage: bool
) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            for chunk in builder.take(event):
                yield _data(chunk)
        if include_usage:
            yield _data(builder.usage_chunk())
    except NearlineError as error:
        yield _data(openai_error(error))
    yield b"data: [DONE]\n\n"


def _data(value: object) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(value)
