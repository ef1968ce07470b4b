"""A pool of threads: work that callers no longer wait for is dropped or stopped."""

from __future__ import annotations

import asyncio
import threading

import pytest

from retrieval.index.thread_pool import ThreadPool
from retrieval.protocols.compute_threads import Stopped


async def test_work_whose_callers_were_cancelled_is_dropped_and_close_does_not_drain_it() -> None:
    threads = ThreadPool(1)
    begun, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def block() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(10)

    blocking = asyncio.create_task(threads.call(block))
    await begun.wait()
    done: list[int] = []
    calls = [
        asyncio.create_task(threads.call_stoppable(lambda stopped, n=n: done.append(n)))  # type: ignore[misc]
        for n in range(500)
    ]
    wanted = asyncio.create_task(threads.call_stoppable(lambda stopped: "wanted"))
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    release.set()
    await asyncio.to_thread(threads.close)
    await blocking
    assert await wanted == "wanted"
    assert not done


async def test_running_work_is_stopped_when_its_caller_is_cancelled() -> None:
    threads = ThreadPool(1)
    begun, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def step(stopped: Stopped) -> None:
        loop.call_soon_threadsafe(begun.set)
        pause = threading.Event()
        while not stopped():
            pause.wait(0.001)
        ended.set()

    call = asyncio.create_task(threads.call_stoppable(step))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(threads.close)
    assert ended.is_set()


async def test_plain_work_runs_even_if_its_caller_is_cancelled() -> None:
    threads = ThreadPool(1)
    done = threading.Event()
    call = asyncio.create_task(threads.call(done.set))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.to_thread(threads.close)
    assert done.is_set()


def test_each_thread_is_prepared_first_and_closing_waits_for_all_of_them() -> None:
    prepared, both, release = [], threading.Barrier(3), threading.Event()

    def work() -> None:
        both.wait(10)
        release.wait(10)

    threads = ThreadPool(2, lambda: prepared.append(threading.current_thread()))
    for _ in range(2):
        threads.start(work)
    both.wait(10)
    assert len(set(prepared)) == 2
    closing = threading.Thread(target=threads.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    release.set()
    closing.join(10)
    assert not any(thread.is_alive() for thread in (closing, *prepared))
