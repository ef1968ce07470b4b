"""Computations outside the event loop: dropped, stopped or awaited."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from nearline.errors import DeadlineExceeded
from retrieval.protocols.compute_threads import Stopped, read_store, run_stoppable


class Steps:
    """A computation that ends only when it is stopped."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, stopped: Stopped) -> None:
        self._loop.call_soon_threadsafe(self.started.set)
        pause = threading.Event()
        while not stopped():
            pause.wait(0.001)
        self.ended.set()


async def test_a_result_is_returned_and_an_error_is_raised() -> None:
    assert await run_stoppable(lambda stopped: 7 if not stopped() else 0) == 7
    with pytest.raises(ZeroDivisionError):
        await run_stoppable(lambda stopped: 1 / 0)


async def test_a_computation_has_the_context_of_its_caller() -> None:
    who = ContextVar("who", default="anybody")
    who.set("shop")
    assert await run_stoppable(lambda stopped: who.get()) == "shop"
    assert await read_store(who.get) == "shop"


async def test_a_computation_stops_when_its_caller_is_cancelled() -> None:
    steps = Steps()
    call = asyncio.create_task(run_stoppable(steps))
    await steps.started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(steps.ended.wait, 10)


async def test_a_computation_stops_at_the_deadline() -> None:
    steps = Steps()
    with pytest.raises(DeadlineExceeded, match="raise the timeout"):
        await run_stoppable(steps, asyncio.get_running_loop().time() + 0.05)
    assert not steps.started.is_set() or await asyncio.to_thread(steps.ended.wait, 10)


async def test_computations_that_no_caller_waits_for_are_dropped_before_they_start() -> None:
    # More than there are threads, so that the later ones have to wait.
    running = [Steps() for _ in range(64)]
    blocking = [asyncio.create_task(run_stoppable(one)) for one in running]
    await running[0].started.wait()
    begun: list[int] = []

    def count(number: int) -> Callable[[Stopped], None]:
        return lambda stopped: begun.append(number)

    waiting = [asyncio.create_task(run_stoppable(count(number))) for number in range(500)]
    await asyncio.sleep(0)
    for task in (*waiting, *blocking):
        task.cancel()
    await asyncio.gather(*waiting, *blocking, return_exceptions=True)
    assert await run_stoppable(lambda stopped: "free") == "free"
    assert not begun
