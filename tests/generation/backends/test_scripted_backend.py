"""Tests the scripted model."""

from __future__ import annotations

import asyncio

import pytest

from generation.protocols.chat_model import ChatEnd, ChatError, ChatFailure
from tests.generation.backends.model_calls import LIMITS, PROMPT, ask
from tests.generation.backends.scripted_backend import ScriptedModel, Stall, answer_script


async def test_scripts_are_played_in_order_and_the_last_repeats() -> None:
    model = ScriptedModel("scripted", [answer_script("one"), answer_script("two", " three [9]")])
    assert [(await ask(model)).texts for _ in range(3)] == [
        ["one"],
        ["two", " three [9]"],
        ["two", " three [9]"],
    ]
    assert model.asked == [(PROMPT, LIMITS)] * 3


async def test_tokens_are_counted() -> None:
    came = await ask(ScriptedModel("scripted", [answer_script("two", " three", length=True)]))
    assert came.end == ChatEnd(length=True, prompt_tokens=0, completion_tokens=2)


async def test_a_script_may_depend_on_the_prompt() -> None:
    model = ScriptedModel(
        "scripted", lambda prompt: answer_script(prompt.messages[-1].text.upper())
    )
    assert (await ask(model)).texts == [PROMPT.messages[-1].text.upper()]


async def test_errors_and_missing_ends() -> None:
    error = ChatError(ChatFailure.QUOTA, "none left", retry_after_s=5)
    came = await ask(ScriptedModel("scripted", [["one", error]]))
    assert came.texts == ["one"] and came.error is not error
    assert came.error is not None and came.error.failure is ChatFailure.QUOTA
    assert came.error.retry_after_s == 5
    cut = (await ask(ScriptedModel("scripted", [["one"]]))).error
    assert cut is not None and cut.failure is ChatFailure.CUT


async def test_a_stall_lasts_until_released_or_cancelled() -> None:
    stalls = [Stall(), Stall()]
    model = ScriptedModel("scripted", [["one", stall, *answer_script("two")] for stall in stalls])
    answer, given_up = (asyncio.create_task(ask(model)) for _ in stalls)
    for stall in stalls:
        await stall.reached.wait()
    assert model.running == 2
    stalls[0].go.set()
    assert (await answer).texts == ["one", "two"]
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert model.running == 0
