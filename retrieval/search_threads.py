"""Threads that do blocking work for an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class SearchThreads:
    """A fixed number of threads, started at once.

    Work hands its results to the loop by itself (`call_soon_threadsafe`), as often as it likes.
    `concurrent.futures` would put two futures and their locks in between; at a few thousand
    searches a second that is a tenth of what a request costs.

    Args:
        count: Threads.
        prepare: Called first in each of them.
    """

    def __init__(self, count: int, prepare: Callable[[], None] = lambda: None) -> None:
        self.count = count
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(prepare,), name=f"search-{n}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, work: Callable[[], None]) -> None:
        """Runs work in the next free thread; it must not raise."""
        self._work.put(work)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Runs a function in the next free thread and gives its result."""
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
            result, error = None, None
            try:
                result = function()
            except Exception as caught:
                error = caught
            loop.call_soon_threadsafe(deliver, result, error)

        self.start(work)
        return await future

    def close(self) -> None:
        """Waits for work that was started, and ends the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, prepare: Callable[[], None]) -> None:
        prepare()
        while (work := self._work.get()) is not None:
            work()
            # Hold nothing while waiting for more.
            del work
