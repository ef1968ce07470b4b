"""Runs long computations outside the event loop, and stops those that no caller waits for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from nearline.errors import DeadlineExceeded

_R = TypeVar("_R")
_M = TypeVar("_M", bound=Message)
# Returns whether the result of a computation is no longer needed.
Stopped: TypeAlias = Callable[[], bool]
# Items of larger requests are converted in a thread: 64 MiB of attributes take many seconds.
_BYTES_PER_TURN = 1 << 20
# One core is left for the event loop. The threads start with the first computations.
_threads = ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) - 1), "compute")
# Reads of the store for callers take seconds; what the service itself reads does not wait for them.
_store_threads = ThreadPoolExecutor(4, "store")

# Of the computation that this thread runs.
_stopped: contextvars.ContextVar[Stopped] = contextvars.ContextVar("stopped", default=lambda: False)


@contextlib.contextmanager
def stoppable(stopped: Stopped) -> Iterator[None]:
    """Lets `check_needed` end the computation of this thread once `stopped` returns True."""
    token = _stopped.set(stopped)
    try:
        yield
    finally:
        _stopped.reset(token)


def check_needed() -> None:
    """Raises DeadlineExceeded once no caller waits for the computation of this thread."""
    if _stopped.get()():
        raise DeadlineExceeded("no caller waits for the result any more")


async def run_stoppable(
    compute: Callable[[Stopped], _R],
    deadline: float | None = None,
    threads: ThreadPoolExecutor = _threads,
) -> _R:
    """Runs a computation in a thread, on behalf of the caller of this call.

    If the caller is cancelled, or at the deadline, a computation that waits for a thread is
    dropped, and a running one is asked to stop.

    Args:
        compute: Calls its argument between steps, and returns anything once that returns True.
        deadline: Loop time after which the result is useless. Optional; None disables it.
        threads: Where it runs.
    Raises: DeadlineExceeded: the deadline came first. Any error of the computation.
    """
    stop = threading.Event()
    run = contextvars.copy_context().run
    work = asyncio.get_running_loop().run_in_executor(threads, run, compute, stop.is_set)
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(
            "the result could not be computed in time; raise the timeout or lower the load"
        ) from None
    finally:
        stop.set()


async def read_store(read: Callable[..., _R], *arguments: object) -> _R:
    """Returns read(*arguments), from one of a few threads; `check_needed` ends it between steps."""

    def run(stopped: Stopped) -> _R:
        with stoppable(stopped):
            return read(*arguments)

    return await run_stoppable(run, threads=_store_threads)


async def read_request(read: Callable[[_M], _R], request: _M) -> _R:
    """Returns read(request), from a thread if the request is large."""
    if request.ByteSize() <= _BYTES_PER_TURN:
        return read(request)
    return await run_stoppable(lambda stopped: read(request))
