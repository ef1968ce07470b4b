"""Runs one task for concurrent requests of a key, with a pause after an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from nearline.errors import NotReady

_K = TypeVar("_K")
_V = TypeVar("_V")
_PAUSE_US = 1_000_000
_MAX_PAUSED = 1_000


class SingleFlight(Generic[_K, _V]):
    """Runs at most one task per key at a time.

    Args:
        clock: Microseconds.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._tasks: dict[_K, asyncio.Task[_V]] = {}
        # By key, oldest first: when the pause ends, and the error.
        self._paused: dict[_K, tuple[int, Exception | None]] = {}

    async def join(self, key: _K, make: Callable[[], Coroutine[Any, Any, _V]]) -> _V:
        """Returns the result of the running task of a key, or of a new one.

        The task continues if a waiting request is cancelled.

        Raises: The error of the task, to all waiting requests and for one second after. NotReady:
            this object is closed.
        """
        task = self._tasks.get(key)
        if task is None:
            error = self._pause_error(key)
            if error is not None:
                raise error.with_traceback(None)
            task = self._start(key, make())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if task.cancelled() and not (waiter and waiter.cancelling()):
                raise NotReady(
                    "this service is shutting down; send the request to another one"
                ) from None
            raise

    def start(self, key: _K, make: Callable[[], Coroutine[Any, Any, _V]]) -> bool:
        """Starts a task in the background; returns False if one is running or the key is paused."""
        if key in self._tasks:
            return False
        self._pause_error(key)
        if key in self._paused:
            return False
        self._start(key, make())
        return True

    def pause(self, key: _K, error: Exception | None = None) -> None:
        """Starts no task of a key for a second; meanwhile requests raise the error, if any."""
        self._paused.pop(key, None)
        self._paused[key] = self._clock() + _PAUSE_US, error
        if len(self._paused) > _MAX_PAUSED:
            del self._paused[next(iter(self._paused))]

    async def close(self) -> None:
        """Cancels all tasks; waiting requests raise NotReady."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, key: _K, work: Coroutine[Any, Any, _V]) -> asyncio.Task[_V]:
        task = self._tasks[key] = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._finish(key, done))
        return task

    def _finish(self, key: _K, task: asyncio.Task[_V]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self.pause(key, error)

    def _pause_error(self, key: _K) -> Exception | None:
        """Returns the error because of which a key is paused; drops pauses that are over."""
        now = self._clock()
        while self._paused:
            first = next(iter(self._paused))
            if now < self._paused[first][0]:
                break
            del self._paused[first]
        return self._paused.get(key, (0, None))[1]
