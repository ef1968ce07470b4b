"""Retries with back-off: which errors are worth another call, how long to wait, when to give up.

The clients' own retries of a call are a gRPC policy in `nearline/channel.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from nearline.errors import DeadlineExceeded, FeedBlocked, NearlineError, NotReady, Overloaded

_R = TypeVar("_R")
ErrorTypes: TypeAlias = type[NearlineError] | tuple[type[NearlineError], ...]

# What services ask of a caller who does not know whether a write took effect.
SAME_KEY = "try again with the same idempotency key"
# A service that restarts is back within a minute.
AWAY_S = 60.0
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow exponentially with each failure in a row.

    first_s: Seconds to wait after the first failure.
    longest_s: Upper bound of a delay, before jitter.
    factor: Growth from one delay to the next.
    jitter: Range of the random factor of each delay; it keeps callers that failed together from
        returning together.
    """

    first_s: float
    longest_s: float = math.inf
    factor: float = 2.0
    jitter: tuple[float, float] = (1.0, 1.0)

    def delay_s(self, failures: int) -> float:
        """Returns the seconds to wait after a failure that followed `failures` others."""
        # The bound on the exponent keeps the power finite.
        grown_s: float = self.first_s * self.factor ** min(failures, 60)
        return min(self.longest_s, grown_s) * random.uniform(*self.jitter)

    def delays(self) -> Iterator[float]:
        """Yields the delays in seconds, from the first; never ends."""
        return map(self.delay_s, itertools.count())


async def retry(
    call: Callable[[], Awaitable[_R]],
    *,
    on: ErrorTypes,
    delays: Iterable[float],
    unless: ErrorTypes = (),
    heed_retry_after: bool = True,
    timeout_s: float | None = None,
    on_failure: Callable[[NearlineError], None] | None = None,
) -> _R:
    """Makes a call until it succeeds or retrying no longer helps, then raises the last error.

    Args:
        call: Makes one attempt.
        on: Errors that are worth a retry.
        delays: Seconds to wait, one delay per failure; the call fails when they run out.
        unless: Subclasses of these errors that are not worth a retry.
        heed_retry_after: Whether an error's `retry_after_s` replaces the delay. An error that
            carries one does not use up a delay.
        timeout_s: Seconds from now; a wait that would end later is not begun. Optional; None
            disables the limit.
        on_failure: Optional; called with each error that is followed by a retry.
    """
    end = math.inf if timeout_s is None else time.monotonic() + timeout_s
    remaining = iter(delays)
    while True:
        try:
            return await call()
        except on as error:
            delay_s = error.retry_after_s if heed_retry_after else None
            if delay_s is None:
                delay_s = next(remaining, None)
            if isinstance(error, unless) or delay_s is None or time.monotonic() + delay_s >= end:
                raise
            if on_failure is not None:
                on_failure(error)
        await asyncio.sleep(delay_s)


async def retry_while_overloaded(
    call: Callable[[], Awaitable[_R]], *, timeout_s: float | None = None
) -> _R:
    """Makes a call until the service is no longer overloaded, at the times the service names.

    Args:
        call: Makes one attempt.
        timeout_s: Seconds from now; see `retry`.
    Raises: Overloaded: it names no time, or one after the timeout. Any other error of the call.
    """
    return await retry(call, on=Overloaded, delays=(), timeout_s=timeout_s)


async def retry_while_unavailable(call: Callable[[], Awaitable[_R]]) -> _R:
    """Makes a call; waits while the service is overloaded, or unavailable for up to a minute.

    The minute is counted again each time that the service answers that it is overloaded.

    Raises: NotReady, DeadlineExceeded: the service was unavailable for longer. FeedBlocked: waiting
        does not help. Any other error of the call.
    """
    return await retry(
        lambda: retry(
            call,
            on=(NotReady, DeadlineExceeded),
            delays=itertools.repeat(_POLL_S),
            timeout_s=AWAY_S,
        ),
        on=Overloaded,
        unless=FeedBlocked,
        delays=itertools.repeat(_POLL_S),
    )
