"""Waits of tests for what happens in other tasks, threads and processes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def until(claim: Callable[[], object | Awaitable[object]]) -> None:
    """Waits until a claim, which may be a coroutine, holds."""
    async with asyncio.timeout(30):
        while True:
            found = claim()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.002)
