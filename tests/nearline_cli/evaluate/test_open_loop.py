"""Tests of the open loop: requests leave at their due times, even while earlier ones are
pending.
"""

from __future__ import annotations

import asyncio
import itertools

from nearline_cli.evaluate.open_loop import run_open_loop


async def test_requests_leave_at_their_due_times_whether_or_not_others_are_answered() -> None:
    loop = asyncio.get_running_loop()
    sent: list[tuple[int, float]] = []
    all_sent = asyncio.Event()

    async def send(number: int, due: float) -> None:
        assert loop.time() >= due - 0.001  # The clock's resolution.
        sent.append((number, due))
        if number == 4:
            all_sent.set()
        # None is answered before the last one has left: a closed loop would wait forever.
        await all_sent.wait()

    async with asyncio.timeout(10):
        start = await run_open_loop(100.0, range(5), send)
    assert sent == [(number, start + number / 100.0) for number in range(5)]


async def test_the_first_request_is_due_at_the_given_start() -> None:
    start = asyncio.get_running_loop().time() + 0.02
    dues: list[float] = []

    async def send(number: int, due: float) -> None:
        dues.append(due)

    assert await run_open_loop(1_000.0, range(2), send, start=start) == start
    assert dues == [start, start + 0.001]


async def test_numbers_decide_when_it_ends() -> None:
    sent: list[int] = []

    async def send(number: int, due: float) -> None:
        sent.append(number)

    numbers = itertools.takewhile(lambda _: len(sent) < 3, itertools.count())
    await run_open_loop(1_000.0, numbers, send)
    assert sent[:3] == [0, 1, 2]
    assert len(sent) <= 4
