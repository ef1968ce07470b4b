"""A circuit breaker around a `ChatModel`: stops requests to a failing model for a while.

Implemented here because pybreaker 1.4 does not support asyncio, and because aiobreaker 1.2 and
purgatory 3.0 count consecutive failures, open for a fixed time, and let every caller through as a
probe.
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

# Failures caused by the request or its caller; they do not count against the model.
_NEUTRAL = frozenset(
    {ChatFailure.DEADLINE, ChatFailure.TOO_LONG, ChatFailure.REFUSED_REQUEST, ChatFailure.OPEN}
)
# Failures that persist until an operator fixes the cause.
_LASTING = frozenset({ChatFailure.QUOTA, ChatFailure.UNAUTHORISED})


class BreakerState(Enum):
    """State of a circuit breaker; the values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    window_s: Seconds for which an outcome counts.
    failures: Minimum number of failures within the window that opens the breaker.
    share: Minimum share of failures among the outcomes that opens the breaker, 0..1.
    open_s: Seconds for which the breaker first stays open; doubles with each failed probe, up to
        longest_s.
    lasting_s: Seconds for which the breaker stays open after a failure that only an operator can
    fix.
    """

    window_s: float = 60.0
    failures: int = 5
    share: float = 0.5
    open_s: float = 5.0
    longest_s: float = 120.0
    lasting_s: float = 300.0


class CircuitBreaker:
    """Counts outcomes and decides which requests are admitted. Not thread-safe.

    A closed breaker admits every request. An open breaker admits no request until its time is over.
    It is then half-open and admits one request as a probe: success closes the breaker, failure
    opens it for twice as long, and if the caller cancels the probe, the next request becomes the
    probe. The outcome of a request that began in an earlier state is ignored, unless it carries a
    retry-after time.

    Args:
        policy: When the breaker opens, and for how long.
        clock: Returns monotonic seconds.
        changed: Called with each new state.
    Source: Nygard, "Release It!", 2007, chapter 5.2, with a time window instead of consecutive
        failures.
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
        self._period = 0  # Number of state changes so far; a permit belongs to one.
        self._probing = False
        self._until = 0.0
        self._backoff = Backoff(policy.open_s, policy.longest_s)
        self._failed_probes = 0

    @property
    def wait_s(self) -> float:
        """Seconds until a request may be admitted; 0 if it may be now."""
        if self.state is BreakerState.OPEN:
            return max(0.0, self._until - self._clock())
        # The duration of a probe is unknown.
        return self._policy.open_s if self._probing else 0.0

    def admit(self) -> int | None:
        """Returns a permit for a request, or None if it is not admitted.

        Pass the permit to exactly one of `succeed`, `fail` and `release`.
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

    def fail(self, permit: int, retry_after_s: float | None = None) -> None:
        """Counts a failure.

        Args:
            permit: The permit of the request.
            retry_after_s: Optional; opens the breaker immediately for this many seconds, even if
                the request began in an earlier state.
        """
        if retry_after_s:
            self._open(retry_after_s)
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
        """Returns a permit without an outcome: the caller cancelled, or the model was not at
        fault."""
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
    """A model with a circuit breaker, a limit on concurrent requests, and metrics.

    Args:
        model: The wrapped model; it makes one attempt per `write`.
        policy: Policy of the breaker; if None, the defaults apply.
        max_concurrent: Maximum concurrent requests.
        place_s: Maximum seconds to wait until one of the concurrent requests has ended.
        clock: Returns monotonic seconds.
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
        """State of the breaker; if open, the next request may become the probe."""
        return self._breaker.state

    async def close(self) -> None:
        """Closes the model."""
        await self._model.close()

    async def write(self, prompt: Prompt, limits: ChatLimits) -> AsyncGenerator[ChatEvent, None]:
        """Streams an answer; see `ChatModel.write`.

        Raises: ChatError: as raised by the model; OPEN if the breaker is open for another
            `retry_after_s` seconds; RATE_LIMITED if no place became free in time.
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
                            # Settled before the yield, because the consumer may stop reading here.
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
            raise ChatError(
                ChatFailure.RATE_LIMITED, "the maximum number of concurrent requests is running"
            ) from None
        try:
            yield
        finally:
            self._places.release()

    def _refused(self) -> ChatError:
        self._count("open")
        wait_s = self._breaker.wait_s
        return ChatError(
            ChatFailure.OPEN,
            f"the circuit breaker is open for another {wait_s:.1f} s",
            retry_after_s=wait_s,
        )

    def _count(self, outcome: str) -> None:
        metrics.model_attempts.labels(self.name, outcome).inc()
