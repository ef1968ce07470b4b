"""Conversion of large messages apart from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
# This takes a few milliseconds.
LARGE_BYTES: Final = 128 << 10
# Waits for the conversion that runs now.
_waiting: ContextVar[asyncio.Task[Any] | None] = ContextVar("waiting", default=None)


async def convert(size: int, work: Callable[[], _T]) -> _T:
    """Returns the result of `work`, which converts a message; in a thread if it is large.

    size: Bytes of the message.
    """
    if size <= LARGE_BYTES:
        return work()
    _waiting.set(asyncio.current_task())
    return await asyncio.to_thread(work)


def check_wanted() -> None:
    """Raises CancelledError if the task that waits for this conversion has ended meanwhile."""
    if (task := _waiting.get()) is not None and task.done():
        raise asyncio.CancelledError
