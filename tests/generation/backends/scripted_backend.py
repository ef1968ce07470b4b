"""A scripted model, for tests of failures."""

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
    """A point at which a script waits until `go` is set; it sets `reached` on arrival."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()


Step: TypeAlias = str | ChatEnd | ChatError | Stall
Script: TypeAlias = Sequence[Step]


def answer_script(*texts: str, length: bool = False) -> list[Step]:
    """Returns the script of a successful answer.

    Args:
        texts: Texts of the answer.
        length: Whether it ended at the token limit.
    """
    tokens = estimate_tokens("".join(texts))
    return [*texts, ChatEnd(length=length, prompt_tokens=0, completion_tokens=tokens)]


class ScriptedModel:
    """Plays one script per call, and repeats the last one.

    A script without an end is an answer that was cut. The model never sleeps, and ignores timeouts.

    Args:
        name: See `ChatModel.name`.
        scripts: One or more scripts, or a function from the prompt to a script.
        asked: The calls, in order.
        running: Number of unfinished calls.
    """

    def __init__(self, name: str, scripts: Sequence[Script] | Callable[[Prompt], Script]) -> None:
        self.name = name
        self.asked: list[tuple[Prompt, ChatLimits]] = []
        self.running = 0
        self.closed = False
        self._scripts = scripts

    async def close(self) -> None:
        """Records that it was closed."""
        self.closed = True

    async def write(self, prompt: Prompt, limits: ChatLimits) -> AsyncGenerator[ChatEvent, None]:
        """Streams the script's answer; see `ChatModel.write`.

        Raises: ChatError: as scripted; CUT for a script without an end.
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
                    # A copy, because an exception that is raised twice keeps both tracebacks.
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
