"""Leaves a failing model alone for a while: a circuit breaker around a `ChatModel`.

Our own: pybreaker 1.4 knows no asyncio, aiobreaker 1.2 and purgatory 3.0 count failures in a row,
open for one fixed time, and let every caller through to probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum

from generation.protocols import metrics
from generation.protocols.chat_model import (
    ChatEnd,
    ChatError,
    ChatEvent,
    ChatFailure,
    ChatLimits,
    ChatModel,
    Prompt,
)
from nearline.retry import Backoff

# They say nothing about the model: the request or its caller is the reason.
_NEUTRAL = frozenset(
    {ChatFailure.DEADLINE, ChatFailure.TOO_LONG, ChatFailure.REFUSED_REQUEST, ChatFailure.OPEN}
)
# No later request will fare better until somebody does something about it.
_LASTING = frozenset({ChatFailure.QUOTA, ChatFailure.UNAUTHORISED})


class BreakerState(Enum):
    """What becomes of a request; the values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens, and for how long; all in seconds but counts and shares.

    window_s: How long an outcome counts. failures: Fewest that open it, within the window.
    share: Of failures among the outcomes that opens it, 0..1. open_s: First time of being open; it
    doubles with each probe that fails, up to longest_s. lasting_s: After a failure that only an
    operator can mend.
    """

    window_s: float = 60.0
    failures: int = 5
    share: float = 0.5
    open_s: float = 5.0
    longest_s: float = 120.0
    lasting_s: float = 300.0


class CircuitBreaker:
    """Counts outcomes and decides who is let through. Not safe across threads.

    Closed: everybody. Open: nobody, for a time. Then half-open: one, whose success closes it and
    whose failure opens it for twice as long; where that one gives up, the next is let through.
    An outcome of a request that began under an earlier state counts for nothing, unless it says
    how long to stay away.

    Args:
        policy: Its numbers.
        clock: Seconds that do not go back.
        changed: Told each new state.
    Source: Nygard, "Release It!", 2007, chapter 5.2, with a window of time instead of a row.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[BreakerState], None] = lambda state: None,
    ) -> None:
        self.state = BreakerState.CLOSED
        self._policy = policy
        self._clock = clock
        self._changed = changed
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._period = 0  # Number of changes of state so far: what a permit belongs to.
        self._probing = False
        self._until = 0.0
        self._backoff = Backoff(policy.open_s, policy.longest_s)
        self._failed_probes = 0

    @property
    def wait_s(self) -> float:
        """Seconds until somebody may be let through; 0 where that is now."""
        if self.state is BreakerState.OPEN:
            return max(0.0, self._until - self._clock())
        # How long a probe takes is not known.
        return self._policy.open_s if self._probing else 0.0

    def admit(self) -> int | None:
        """Lets a request through, or not (None).

        Returns: A permit, to be handed back by exactly one of the three methods below.
        """
        if self.state is not BreakerState.CLOSED:
            if self.wait_s > 0:
                return None
            if self.state is BreakerState.OPEN:
                self._turn(BreakerState.HALF_OPEN)
            self._probing = True
        return self._period

    def succeed(self, permit: int) -> None:
        """Counts a success."""
        if permit != self._period:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._failed_probes = 0
            self._turn(BreakerState.CLOSED)
        self._count(True)

    def fail(self, permit: int, stay_away_s: float | None = None) -> None:
        """Counts a failure.

        Args:
            permit: Of the request.
            stay_away_s: Opens it at once and for so long, whenever the request began.
        """
        if stay_away_s:
            self._open(stay_away_s)
        elif permit == self._period:
            if self.state is BreakerState.HALF_OPEN:
                self._failed_probes += 1
                self._open(self._backoff.delay_s(self._failed_probes))
            else:
                self._count(False)
                failed = sum(not good for _, good in self._outcomes)
                if failed >= max(self._policy.failures, self._policy.share * len(self._outcomes)):
                    self._open(self._backoff.delay_s(self._failed_probes))

    def release(self, permit: int) -> None:
        """Counts nothing: the caller gave up, or the outcome says nothing about the model."""
        if permit == self._period:
            self._probing = False

    def _count(self, good: bool) -> None:
        now = self._clock()
        self._outcomes.append((now, good))
        while self._outcomes[0][0] <= now - self._policy.window_s:
            self._outcomes.popleft()

    def _open(self, for_s: float) -> None:
        until = self._clock() + for_s
        self._until = max(self._until, until) if self.state is BreakerState.OPEN else until
        self._turn(BreakerState.OPEN)

    def _turn(self, state: BreakerState) -> None:
        self.state = state
        self._period += 1
        self._probing = False
        self._outcomes.clear()
        self._changed(state)


class GuardedModel:
    """A model with a breaker, a bound on the requests at a time, and metrics.

    Args:
        model: One that makes one attempt per `write`.
        policy: Of the breaker.
        max_concurrent: Most requests at a time.
        place_s: Most seconds to wait until there is a place among them.
        clock: For tests.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        policy: BreakerPolicy | None = None,
        max_concurrent: int = 8,
        place_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = model.name
        self._model = model
        self._policy = policy or BreakerPolicy()
        self._clock = clock
        self._places = asyncio.Semaphore(max_concurrent)
        self._place_s = place_s
        gauge = metrics.breaker_state.labels(self.name)
        gauge.set(BreakerState.CLOSED.value)
        self._breaker = CircuitBreaker(self._policy, clock, lambda state: gauge.set(state.value))

    @property
    def state(self) -> BreakerState:
        """State of the breaker; open may mean that the next request will be the probe."""
        return self._breaker.state

    async def close(self) -> None:
        """Closes the model."""
        await self._model.close()

    async def write(self, prompt: Prompt, limits: ChatLimits) -> AsyncGenerator[ChatEvent, None]:
        """Streams an answer; see `ChatModel.write`.

        Raises: ChatError: of the model; OPEN: it is left alone, for `retry_after_s`; RATE_LIMITED:
            no place became free in time.
        """
        asked = self._clock()
        if self._breaker.wait_s > 0:
            raise self._refused()
        async with self._place(limits.timeout_s):
            permit = self._breaker.admit()
            if permit is None:
                raise self._refused()
            start = self._clock()
            left = dataclasses.replace(limits, timeout_s=limits.timeout_s - (start - asked))
            outcome = "abandoned"
            try:
                async with contextlib.aclosing(self._model.write(prompt, left)) as events:
                    silent = True
                    async for event in events:
                        if silent:
                            silent = False
                            metrics.model_first_text_seconds.labels(self.name).observe(
                                self._clock() - start
                            )
                        if isinstance(event, ChatEnd):
                            # Before it goes on: its reader may well read no further.
                            outcome = "length" if event.length else "stop"
                            self._breaker.succeed(permit)
                        yield event
            except ChatError as error:
                outcome = error.failure.name.lower()
                self._settle(permit, error)
                raise
            finally:
                if outcome == "abandoned":
                    self._breaker.release(permit)
                self._count(outcome)

    def _settle(self, permit: int, error: ChatError) -> None:
        if error.failure in _NEUTRAL:
            self._breaker.release(permit)
            return
        lasting_s = self._policy.lasting_s if error.failure in _LASTING else None
        self._breaker.fail(permit, error.retry_after_s or lasting_s)

    @contextlib.asynccontextmanager
    async def _place(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(min(self._place_s, timeout_s)):
                await self._places.acquire()
        except TimeoutError:
            self._count("busy")
            raise ChatError(ChatFailure.RATE_LIMITED, "as many requests as allowed run") from None
        try:
            yield
        finally:
            self._places.release()

    def _refused(self) -> ChatError:
        self._count("open")
        wait_s = self._breaker.wait_s
        return ChatError(
            ChatFailure.OPEN, f"left alone for {wait_s:.1f} s more", retry_after_s=wait_s
        )

    def _count(self, outcome: str) -> None:
        metrics.model_attempts.labels(self.name, outcome).inc()
