"""Tests the client with llama-cpp-python's server: the protocol, not the content.

The model is a base model and follows no instructions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from generation.backends.circuit_breaker import BreakerPolicy, BreakerState, GuardedModel
from generation.backends.openai_chat import OpenAIChat, Timeouts
from generation.protocols.chat_model import ChatError, ChatFailure, ChatLimits, Message, Prompt
from tests.generation.backends.model_calls import ask, error_from
from tests.generation.backends.test_circuit_breaker import Clock
from tests.generation.llm.conftest import CONTEXT, LlamaServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

PATIENT = Timeouts(connect_s=20, first_text_s=60, between_texts_s=60)
PROMPT = Prompt(
    messages=[Message("user", "Once upon a time there was a kettle. It stood in")],
    version="t-1",
    tokens=12,
)
# It continues counting up to the token limit.
COUNTING = Prompt(
    messages=[Message("user", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,")],
    version="t-1",
    tokens=26,
)
FEW = ChatLimits(max_tokens=8, timeout_s=60)
MANY = ChatLimits(max_tokens=1_500, timeout_s=240)


def chat(server: LlamaServer, context_tokens: int = CONTEXT) -> OpenAIChat:
    """Returns a client with timeouts for a slow machine."""
    return OpenAIChat("small", server.url, "small", context_tokens=context_tokens, timeouts=PATIENT)


@pytest_asyncio.fixture
async def model(small: LlamaServer) -> AsyncIterator[OpenAIChat]:
    """Returns a client of the shared server."""
    client = chat(small)
    yield client
    await client.close()


async def test_an_answer_comes_in_pieces_and_is_counted(model: OpenAIChat) -> None:
    came = await ask(model, PROMPT, FEW)
    assert came.end is not None and came.end.length
    assert len(came.texts) > 1
    # This server sends no usage with a stream.
    assert came.end.prompt_tokens == PROMPT.tokens
    assert came.end.completion_tokens >= len(came.texts)
    assert came.end.completion_tokens <= 2 * FEW.max_tokens


async def test_two_answers_at_a_time_are_both_whole(model: OpenAIChat) -> None:
    answers = await asyncio.gather(*(ask(model, PROMPT, FEW) for _ in range(2)))
    assert [len(came.texts) for came in answers] == [len(answers[0].texts)] * 2
    assert all(came.end is not None for came in answers)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_cancelled_answer_makes_way_for_the_next(model: OpenAIChat, how: str) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    events = model.write(COUNTING, MANY)
    for _ in range(20):
        await anext(events)
    per_text_s = (loop.time() - start) / 20
    if how == "closed":
        await events.aclose()
    else:
        task = asyncio.ensure_future(anext(events))
        await asyncio.wait([task], timeout=0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    given_up = loop.time()
    assert (await ask(model, PROMPT, FEW)).end is not None
    # The complete answer would have taken seven times as long.
    assert loop.time() - given_up < (MANY.max_tokens - 20) / 7 * per_text_s


async def test_a_prompt_too_long_for_the_server_is_refused(
    small: LlamaServer, model: OpenAIChat
) -> None:
    long = Prompt(
        messages=[Message("user", "kettle " * (2 * CONTEXT))], version="t-1", tokens=2 * CONTEXT
    )
    checked = await ask(model, long, FEW)
    assert checked.error is not None and checked.error.failure is ChatFailure.TOO_LONG
    # Without the client's check, the server returns nothing; the next question is answered.
    hopeful = chat(small, context_tokens=100 * CONTEXT)
    came = await ask(hopeful, long, FEW)
    assert came.texts == []
    assert came.error is not None and came.error.failure in (
        ChatFailure.MALFORMED,
        ChatFailure.TOO_LONG,
    )
    assert (await ask(hopeful, PROMPT, FEW)).end is not None
    await hopeful.close()


async def test_a_dead_server_is_skipped_until_it_is_back(
    llama: Callable[..., LlamaServer],
) -> None:
    server, clock = llama(), Clock()
    client = chat(server)
    guarded = GuardedModel(client, policy=BreakerPolicy(failures=2, open_s=10), clock=clock)
    events = guarded.write(COUNTING, MANY)
    await anext(events)
    server.kill()
    with pytest.raises(ChatError, match="connection failed"):
        async for _ in events:
            pass
    assert (await error_from(guarded)).failure is ChatFailure.CONNECTION
    assert (await error_from(guarded)).failure is ChatFailure.OPEN
    llama(server.port)
    assert (await error_from(guarded)).failure is ChatFailure.OPEN
    clock.now += 10
    assert (await ask(guarded, PROMPT, FEW)).end is not None
    assert guarded.state is BreakerState.CLOSED
    await client.close()
