"""A model that says what a script tells it: for tests of everything that can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeAlias

from generation.protocols.chat_model import (
    ChatEnd,
    ChatError,
    ChatEvent,
    ChatFailure,
    ChatLimits,
    Prompt,
)
from nearline.sentences import estimate_tokens


class Stall:
    """A place in a script where it waits until `go` is set; `reached` tells that it got there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()


Step: TypeAlias = str | ChatEnd | ChatError | Stall
Script: TypeAlias = Sequence[Step]


def answer_script(*texts: str, length: bool = False) -> list[Step]:
    """Returns the script of a good answer; a false citation is a text like any other.

    Args:
        texts: Its pieces.
        length: Whether it ended at the most tokens allowed.
    """
    tokens = estimate_tokens("".join(texts))
    return [*texts, ChatEnd(length=length, prompt_tokens=0, completion_tokens=tokens)]


class ScriptedModel:
    """Plays one script per call, the last one for ever.

    A script that just stops is an answer that was cut. It never sleeps, and keeps no time limit.

    Args:
        name: See `ChatModel.name`.
        scripts: One or more; or a function that makes one of the prompt.
    asked: What it was asked, in order. running: Calls that have not ended.
    """

    def __init__(self, name: str, scripts: Sequence[Script] | Callable[[Prompt], Script]) -> None:
        self.name = name
        self.asked: list[tuple[Prompt, ChatLimits]] = []
        self.running = 0
        self.closed = False
        self._scripts = scripts

    async def close(self) -> None:
        """Notes that it was closed."""
        self.closed = True

    async def write(self, prompt: Prompt, limits: ChatLimits) -> AsyncGenerator[ChatEvent, None]:
        """Streams the script's answer; see `ChatModel.write`.

        Raises: ChatError: as scripted; CUT at the end of a script without an end.
        """
        self.asked.append((prompt, limits))
        if callable(self._scripts):
            script = self._scripts(prompt)
        else:
            script = self._scripts[min(len(self.asked), len(self._scripts)) - 1]
        self.running += 1
        try:
            for step in script:
                if isinstance(step, ChatError):
                    # A new one: an exception that is raised twice keeps both tracebacks.
                    raise ChatError(step.failure, step.message, retry_after_s=step.retry_after_s)
                if isinstance(step, Stall):
                    step.reached.set()
                    await step.go.wait()
                else:
                    yield step
                if isinstance(step, ChatEnd):
                    return
            raise ChatError(ChatFailure.CUT, "the script has no end")
        finally:
            self.running -= 1
