"""Tests the client of OpenAI-compatible servers with a misbehaving server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from generation.backends.openai_chat import OpenAIChat, Timeouts
from generation.protocols.chat_model import ChatEnd, ChatError, ChatFailure, ChatLimits
from tests.generation.backends.chat_server import (
    Exchange,
    Reply,
    Server,
    finish,
    refuses,
    serving,
    streams,
    text,
)
from tests.generation.backends.model_calls import LIMITS, PROMPT, QUESTION, ask, error_from

pytestmark = pytest.mark.service

KEY = "sk-very-secret-1234"
SHORT_S = 0.05
# Events without a meaning for the client.
ODD = (ChatFailure.MALFORMED, ChatFailure.CUT, ChatFailure.SERVER)
GOOD = streams("Three", " days", ".", finish("stop"))


@contextlib.asynccontextmanager
async def asking(
    *replies: Reply, first_text_s: float = 60.0, between_texts_s: float = 60.0
) -> AsyncIterator[tuple[OpenAIChat, Server]]:
    """Yields a client and its server; phases without a timeout never time out in a test."""
    timeouts = Timeouts(20.0, first_text_s, between_texts_s)
    async with serving(*replies) as server:
        model = OpenAIChat("small", server.url, "m", KEY, context_tokens=2048, timeouts=timeouts)
        try:
            yield model, server
        finally:
            await model.close()


async def stall(exchange: Exchange) -> None:
    """Never answers; ends when the client disconnects."""
    await exchange.gone()


async def stall_in_mid_answer(exchange: Exchange) -> None:
    """Sends one word, and then nothing."""
    await exchange.begin()
    await exchange.event(text("Three"))
    await exchange.gone()


async def test_texts_arrive_in_order_before_the_end() -> None:
    async with asking(GOOD) as (model, server):
        came = await ask(model)
    assert came.texts == ["Three", " days", "."]
    # Without usage, the prompt counts as estimated, and each text as one token.
    assert came.end == ChatEnd(length=False, prompt_tokens=10, completion_tokens=3)
    (exchange,) = server.exchanges
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.asked == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": QUESTION},
        ],
        "max_tokens": 100,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_length_and_usage_are_taken_from_the_server() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 77, "completion_tokens": 9}}
    async with asking(streams("Three", finish("length"), usage)) as (model, _):
        came = await ask(model)
    assert came.end == ChatEnd(length=True, prompt_tokens=77, completion_tokens=9)


@pytest.mark.parametrize("number", [None, -1, "9"])
async def test_a_usage_without_numbers_is_no_usage(number: object) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": number, "completion_tokens": number}}
    async with asking(streams("Three days", finish("stop"), usage)) as (model, _):
        came = await ask(model)
    assert came.end is not None
    assert (came.end.prompt_tokens, came.end.completion_tokens) == (PROMPT.tokens, 2)


async def test_several_tokens_in_one_text_are_counted() -> None:
    async with asking(streams("one two three four", finish("stop"))) as (model, _):
        came = await ask(model)
    assert came.end is not None and came.end.completion_tokens == 4


async def test_a_good_answer_needs_neither_usage_nor_done_nor_a_good_close() -> None:
    async def vanish(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(text("Three"))
        await exchange.event(finish("stop"))
        exchange.cut()

    async with asking(vanish) as (model, _):
        came = await ask(model)
    assert came.texts == ["Three"] and came.end is not None


async def test_a_server_that_stays_open_after_the_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stay(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(text("Three"))
        await exchange.event(finish("stop"))
        await exchange.gone()

    monkeypatch.setattr("generation.backends.openai_chat._USAGE_WAIT_S", SHORT_S)
    async with asking(stay) as (model, _), asyncio.timeout(10):
        came = await ask(model)
    assert came.texts == ["Three"] and came.end is not None


async def test_events_without_text_are_skipped() -> None:
    role = {"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]}
    odd = [{"choices": []}, {}, role, {"choices": None}, {"choices": [{"delta": None}]}]
    async with asking(streams(*odd, "Three", finish("stop"))) as (model, _):
        came = await ask(model)
    assert came.texts == ["Three"]


async def test_connections_are_reused_after_successful_answers() -> None:
    async with asking(GOOD) as (model, server):
        for _ in range(3):
            assert (await ask(model)).end is not None
        assert server.connections == 1


async def test_a_missing_server_is_a_connection_failure() -> None:
    with socket.socket() as taken:
        # Bound but not listening, so it refuses connections.
        taken.bind(("127.0.0.1", 0))
        model = OpenAIChat("small", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "m")
        error = await error_from(model)
        await model.close()
    assert error.failure is ChatFailure.CONNECTION


async def test_a_late_first_text_is_a_timeout() -> None:
    async with asking(stall, first_text_s=SHORT_S) as (model, server):
        assert (await error_from(model)).failure is ChatFailure.TIMEOUT
        await server.done()


async def test_a_role_event_is_not_a_first_text() -> None:
    async def role_only(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event({"choices": [{"delta": {"role": "assistant"}}]})
        await exchange.gone()

    async with asking(role_only, first_text_s=SHORT_S) as (model, server):
        assert (await error_from(model)).failure is ChatFailure.TIMEOUT
        await server.done()


async def test_silence_in_mid_answer_is_a_stall() -> None:
    async with asking(stall_in_mid_answer, between_texts_s=SHORT_S) as (model, server):
        came = await ask(model)
        await server.done()
    assert came.texts == ["Three"]
    assert came.error is not None and came.error.failure is ChatFailure.STALLED


async def test_a_slow_consumer_does_not_count_as_a_silent_server() -> None:
    read = asyncio.Event()

    async def in_two_parts(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(text("Three"))
        await read.wait()
        await exchange.event(text(" days"))
        await exchange.event(finish("stop"))
        await exchange.end()

    silent_s = 0.4
    async with asking(in_two_parts, between_texts_s=silent_s) as (model, _):
        events = model.write(PROMPT, LIMITS)
        async with contextlib.aclosing(events):
            assert await anext(events) == "Three"
            # The consumer is busy for longer than the server may be silent.
            later = asyncio.get_running_loop().time() + 1.5 * silent_s
            asyncio.get_running_loop().call_at(later, read.set)
            await read.wait()
            assert await anext(events) == " days"


@pytest.mark.parametrize("reply", [stall, stall_in_mid_answer])
async def test_the_deadline_holds_in_every_phase(reply: Reply) -> None:
    async with asking(reply) as (model, server):
        error = await error_from(model, ChatLimits(max_tokens=10, timeout_s=SHORT_S))
        assert error.failure is ChatFailure.DEADLINE
        await server.done()


async def test_a_stream_that_never_pauses_still_ends_at_the_deadline() -> None:
    async def chatter(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.event(text("on and "))

    async with asking(chatter) as (model, _):
        error = await error_from(model, ChatLimits(max_tokens=10, timeout_s=SHORT_S))
    assert error.failure is ChatFailure.DEADLINE


async def test_closing_the_answer_closes_the_connection() -> None:
    async with asking(stall_in_mid_answer) as (model, server):
        events = model.write(PROMPT, LIMITS)
        assert await anext(events) == "Three"
        await events.aclose()
        await server.done()


@pytest.mark.parametrize("reply", [stall, stall_in_mid_answer])
async def test_cancelling_the_task_closes_the_connection(reply: Reply) -> None:
    async with asking(reply) as (model, server):
        task = asyncio.create_task(ask(model))
        await server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.done()


async def test_an_answer_without_an_end_is_cut() -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(text("Three"))
        exchange.cut()

    async with asking(cut) as (model, _):
        came = await ask(model)
    assert came.texts == ["Three"]
    assert came.error is not None and came.error.failure is ChatFailure.CUT


@pytest.mark.parametrize(
    ("events", "failure"),
    [
        # llama.cpp interrupted by another request: a regular close without a finish reason.
        (["Three"], ChatFailure.CUT),
        ([], ChatFailure.MALFORMED),
        ([finish("stop")], ChatFailure.EMPTY),
        ([" \n", finish("stop")], ChatFailure.EMPTY),
        (["Three", finish("content_filter")], ChatFailure.REFUSED_REQUEST),
        (["Three", finish("tool_calls")], ChatFailure.CUT),
        ([["not", "an", "object"]], ChatFailure.CUT),
        ([{"choices": "none"}], ChatFailure.MALFORMED),
        ([{"choices": {"0": {}}}], ChatFailure.MALFORMED),
        ([{"choices": [None]}], ChatFailure.MALFORMED),
        ([{"choices": [{"delta": {"content": 5}}]}], ChatFailure.MALFORMED),
        ([{"choices": [{"delta": {"content": ["a"]}}]}], ChatFailure.MALFORMED),
        ([{"choices": [{"delta": {}, "finish_reason": 1}]}], ChatFailure.MALFORMED),
        ([{"error": {"message": "out of memory", "code": 500}}], ChatFailure.SERVER),
        (["Three", {"error": "out of memory"}], ChatFailure.SERVER),
        ([{"error": {"message": "slow down", "code": 429}}], ChatFailure.RATE_LIMITED),
    ],
)
async def test_unsuccessful_ends_are_failures(events: list[object], failure: ChatFailure) -> None:
    async with asking(streams(*events)) as (model, _):
        assert (await error_from(model)).failure is failure


@pytest.mark.parametrize(
    "raw",
    [
        "{not json",
        "null",
        "3",
        '"text"',
        "[" * 100_000,
        "1" * 5_000,
        '{"error": {"code": "' + "1" * 5_000 + '"}}',
    ],
)
async def test_events_that_are_not_objects_are_malformed(raw: str) -> None:
    async def reply(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(raw)
        await exchange.end()

    async with asking(reply) as (model, _):
        assert (await error_from(model)).failure in ODD


async def test_bytes_that_are_not_text_are_malformed() -> None:
    async def reply(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 10\r\n\r\n"
            b"data: \xff\xfe\n\n"
        )

    async with asking(reply) as (model, _):
        assert (await error_from(model)).failure is ChatFailure.MALFORMED


async def test_a_page_instead_of_a_stream_is_malformed() -> None:
    async def reply(exchange: Exchange) -> None:
        page = b"<html>Log in, please</html>"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(page)}\r\n\r\n"
        await exchange.send(head.encode() + page)

    async with asking(reply) as (model, _):
        assert (await error_from(model)).failure is ChatFailure.MALFORMED


async def test_a_connection_is_not_reused_after_an_empty_reply() -> None:
    async def empty(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.end()

    async with asking(empty, GOOD) as (model, server):
        assert (await error_from(model)).failure is ChatFailure.MALFORMED
        assert (await ask(model)).end is not None
        assert [exchange.connection for exchange in server.exchanges] == [0, 1]


async def test_error_statuses_are_classified() -> None:
    error = {"message": f"not with {QUESTION}", "type": "invalid_request_error", "code": None}
    replies = [
        refuses(429, error, "retry-after: 7"),
        refuses(402, error),
        refuses(500, error),
        refuses(400, error | {"code": "context_length_exceeded"}),
    ]
    async with asking(*replies) as (model, server):
        errors = [await error_from(model) for _ in replies]
        # The client does not retry automatically.
        assert len(server.exchanges) == len(replies)
    assert [(one.failure, one.retry_after_s) for one in errors] == [
        (ChatFailure.RATE_LIMITED, 7.0),
        (ChatFailure.QUOTA, None),
        (ChatFailure.SERVER, None),
        (ChatFailure.TOO_LONG, None),
    ]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_with_key_and_prompt(status: int) -> None:
    async with serving(GOOD) as other:
        moved = refuses(status, None, f"location: {other.url}/chat/completions")
        async with asking(moved) as (model, server):
            error = await error_from(model)
        assert (len(server.exchanges), other.exchanges) == (1, [])
    assert (error.failure, error.message) == (ChatFailure.REFUSED_REQUEST, f"HTTP {status}")


async def test_a_prompt_that_cannot_fit_is_not_sent() -> None:
    async with asking(GOOD) as (model, server):
        # 10 tokens plus 8 for each of 2 messages leave 2,022.
        assert (await ask(model, limits=ChatLimits(max_tokens=2022, timeout_s=20))).end is not None
        error = await error_from(model, ChatLimits(max_tokens=2023, timeout_s=20))
        assert error.failure is ChatFailure.TOO_LONG
        assert len(server.exchanges) == 1


async def test_neither_the_key_nor_the_question_is_logged_or_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    leaky = {"message": f"key {KEY} asked {QUESTION}", "type": "/models/secret.gguf"}
    async with asking(GOOD, refuses(400, leaky), streams("Three", {"error": leaky})) as (model, _):
        await ask(model)
        errors: list[ChatError] = [await error_from(model) for _ in range(2)]
        logging.getLogger("test").warning("failed", exc_info=errors[0])
    said = caplog.text + "".join(one.message for one in errors)
    assert "HTTP 400" in said
    for secret in (KEY, QUESTION, "secret.gguf"):
        assert secret not in said


async def test_nothing_from_the_environment_is_sent_to_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-server")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-another-server")
    async with serving(GOOD) as server:
        model = OpenAIChat("small", server.url, "m")
        await ask(model)
        await model.close()
        sent = server.exchanges[0].headers
    assert not [value for value in sent.values() if "another-server" in value]
