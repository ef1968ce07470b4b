"""Open-loop load: requests leave at fixed times, whether or not earlier ones were answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable


async def run_open_loop(
    rate: float,
    numbers: Iterable[int],
    send: Callable[[int, float], Coroutine[None, None, None]],
    *,
    start: float | None = None,
) -> float:
    """Calls `send` with the number of each request and its due time; waits for all of them.

    Measure latencies from the due time, so that they show when the server falls behind; a closed
    loop would slow down with the server and hide it.

    Args:
        rate: Requests per second.
        numbers: Numbers of the requests, from 0; `itertools.count()` sends until cancelled.
        send: Sends one request. Times are those of the event loop.
        start: Due time of the first request. If None, now.
    Returns: The due time of the first request.
    """
    loop = asyncio.get_running_loop()
    start = loop.time() if start is None else start
    async with asyncio.TaskGroup() as requests:
        for number in numbers:
            due = start + number / rate
            await asyncio.sleep(due - loop.time())
            requests.create_task(send(number, due))
    return start
