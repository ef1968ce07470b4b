"""Runs long computations outside the event loop, and stops those that no caller waits for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
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


async def run_stoppable(compute: Callable[[Stopped], _R], deadline: float | None = None) -> _R:
    """Runs a computation in a thread.

    If the caller is cancelled, or at the deadline, a computation that waits for a thread is
    dropped, and a running one is asked to stop.

    Args:
        compute: Calls its argument between steps, and returns anything once that returns True.
        deadline: Loop time after which the result is useless. Optional; None disables it.
    Raises: DeadlineExceeded: the deadline came first. Any error of the computation.
    """
    stop = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(_threads, compute, stop.is_set)
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(
            "the result could not be computed in time; raise the timeout or lower the load"
        ) from None
    finally:
        stop.set()


async def read_request(read: Callable[[_M], _R], request: _M) -> _R:
    """Returns read(request), from a thread if the request is large."""
    if request.ByteSize() <= _BYTES_PER_TURN:
        return read(request)
    return await run_stoppable(lambda stopped: read(request))
