"""Conversion of large messages apart from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")
# This takes a few milliseconds.
_BYTES_PER_TURN: Final = 128 << 10


async def convert(size: int, work: Callable[[], _T]) -> _T:
    """Returns the result of `work`, which converts a message; in a thread if it is large.

    size: Bytes of the message.
    """
    return await asyncio.to_thread(work) if size > _BYTES_PER_TURN else work()
