"""Waits of tests for what happens in other tasks, threads and processes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def until(
    claim: Callable[[], object | Awaitable[object]], timeout_s: float = 10, every_s: float = 0.005
) -> None:
    """Waits until a claim, which may be a coroutine, holds; raises TimeoutError if it does not."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = claim()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(every_s)
