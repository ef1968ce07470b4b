"""Runs long computations outside the event loop, and stops those that no caller waits for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from nearline.errors import DeadlineExceeded

_R = TypeVar("_R")
# Returns whether the result of a computation is no longer needed.
Stopped: TypeAlias = Callable[[], bool]
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
