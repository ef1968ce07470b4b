"""Calls a model and collects its answer."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from generation.protocols.chat_model import (
    ChatEnd,
    ChatError,
    ChatLimits,
    ChatModel,
    Message,
    Prompt,
)

QUESTION = "how long does the private kettle boil"
PROMPT = Prompt(
    messages=[Message("system", "Answer."), Message("user", QUESTION)], version="t-1", tokens=10
)
LIMITS = ChatLimits(max_tokens=100, timeout_s=20.0)


class Came(NamedTuple):
    """Texts in order, then the end or the error."""

    texts: list[str]
    end: ChatEnd | None
    error: ChatError | None


async def ask(model: ChatModel, prompt: Prompt = PROMPT, limits: ChatLimits = LIMITS) -> Came:
    """Reads a whole answer, and checks that texts are not empty and that one end is last."""
    texts: list[str] = []
    end: ChatEnd | None = None
    try:
        async with contextlib.aclosing(model.write(prompt, limits)) as events:
            async for event in events:
                assert end is None, "something came after the end"
                if isinstance(event, ChatEnd):
                    end = event
                else:
                    assert event
                    texts.append(event)
    except ChatError as error:
        assert end is None, "a failure came after the end"
        return Came(texts, None, error)
    assert end is not None, "no end came"
    return Came(texts, end, None)


async def error_from(model: ChatModel, limits: ChatLimits = LIMITS) -> ChatError:
    """Returns the failure that an answer ended with."""
    error = (await ask(model, limits=limits)).error
    assert error is not None, "it answered"
    return error
