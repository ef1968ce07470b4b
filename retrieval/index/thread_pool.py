"""A thread pool for blocking work of an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from nearline.thread_priority import give_way
from retrieval.protocols.compute_threads import Stopped, stoppable

_SETTLE_POLL_S = 0.005


class ThreadPool:
    """A fixed number of threads, all started immediately.

    Work delivers its results to the loop through `call_soon_threadsafe`. `concurrent.futures` would
    add two futures and their locks, which cost a tenth of a request at a few thousand searches a
    second.

    Args:
        count: Number of threads.
        prepare: Called first in each thread.
    """

    def __init__(self, count: int, prepare: Callable[[], None] = lambda: None) -> None:
        self.count = count
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # Per thread: the number of starts and ends of work so far; odd while it works.
        self._turns = [0] * count
        self._threads = [
            threading.Thread(target=self._serve, args=(n, prepare), name=f"search-{n}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, work: Callable[[], None]) -> None:
        """Runs `work`, which must not raise, in the next free thread."""
        self._work.put(work)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Runs a function in the next free thread, even if the caller is cancelled meanwhile."""
        return await self._call(lambda _: function(), drop=False)

    async def call_stoppable(self, function: Callable[[Stopped], Any]) -> Any:
        """Runs a function in the next free thread, unless the caller is cancelled before that.

        Args:
            function: Calls its argument between steps. Once that returns True, the caller was
                cancelled, and the function may return anything.
        """
        return await self._call(function, drop=True)

    async def _call(self, function: Callable[[Stopped], Any], *, drop: bool) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def deliver(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            if drop and future.done():
                return
            result, error = None, None
            try:
                with stoppable(future.done if drop else lambda: False):
                    result = function(future.done)
            except Exception as caught:
                error = caught
            loop.call_soon_threadsafe(deliver, result, error)

        self.start(work)
        return await future

    async def settled(self) -> None:
        """Waits until all work that is running now has ended; later work may run."""
        running = [(n, turns) for n, turns in enumerate(self._turns) if turns % 2]
        while any(self._turns[n] == turns for n, turns in running):
            await asyncio.sleep(_SETTLE_POLL_S)

    def close(self) -> None:
        """Waits for pending work that callers still wait for, and ends the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int, prepare: Callable[[], None]) -> None:
        give_way()
        prepare()
        while (work := self._work.get()) is not None:
            self._turns[number] += 1
            work()
            self._turns[number] += 1
            # Keep no objects alive while waiting for more work.
            del work
