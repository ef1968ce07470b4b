"""What several ask for at once is done once, and an error is not run into again at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from nearline.errors import NotReady

_K = TypeVar("_K")
_V = TypeVar("_V")
_REST_US = 1_000_000
_MAX_RESTING = 1_000


class SingleFlight(Generic[_K, _V]):
    """Runs one task for each key at a time.

    Args:
        clock: Microseconds.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._tasks: dict[_K, asyncio.Task[_V]] = {}
        # By key, oldest first: when it may be tried again, and the error.
        self._resting: dict[_K, tuple[int, Exception | None]] = {}

    async def join(self, key: _K, make: Callable[[], Coroutine[Any, Any, _V]]) -> _V:
        """Returns what a task gives: the one under way, else a new one.

        One who is cancelled does not end it for others, nor for itself: it goes on.

        Raises: Whatever it raises, to all who wait and for one second after. NotReady: closed.
        """
        task = self._tasks.get(key)
        if task is None:
            error = self._rests(key)
            if error is not None:
                raise error.with_traceback(None)
            task = self._start(key, make())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if task.cancelled() and not (waiter and waiter.cancelling()):
                raise NotReady("this service is about to end; ask another one") from None
            raise

    def start(self, key: _K, make: Callable[[], Coroutine[Any, Any, _V]]) -> bool:
        """Starts a task that nobody waits for; False: one is under way, or the key rests."""
        if key in self._tasks:
            return False
        self._rests(key)
        if key in self._resting:
            return False
        self._start(key, make())
        return True

    def rest(self, key: _K, error: Exception | None = None) -> None:
        """Has no task started for a second; who asks meanwhile gets the error, if there is one."""
        self._resting.pop(key, None)
        self._resting[key] = self._clock() + _REST_US, error
        if len(self._resting) > _MAX_RESTING:
            del self._resting[next(iter(self._resting))]

    async def close(self) -> None:
        """Ends all tasks; who waits for one gets NotReady."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, key: _K, work: Coroutine[Any, Any, _V]) -> asyncio.Task[_V]:
        task = self._tasks[key] = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def _landed(self, key: _K, task: asyncio.Task[_V]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self.rest(key, error)

    def _rests(self, key: _K) -> Exception | None:
        """Returns the error that a key rests from, after forgetting all that have rested."""
        now = self._clock()
        while self._resting:
            first = next(iter(self._resting))
            if now < self._resting[first][0]:
                break
            del self._resting[first]
        return self._resting.get(key, (0, None))[1]
