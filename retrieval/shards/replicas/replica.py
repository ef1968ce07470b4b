"""A replica: one shard server, with its shards, its health and the calls to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeVar

from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    NearlineError,
    NotApplied,
    NotFound,
    NotReady,
    Overloaded,
    SnapshotGone,
)
from retrieval.balancing.health import ReplicaHealth, ReplicaState
from retrieval.live.progress import ShardProgress
from retrieval.protocols import metrics
from retrieval.shards.client import ShardKey

_POLL_S = 0.5
_POLL_TIMEOUT_S = 1.0
_log = logging.getLogger(__name__)
_R = TypeVar("_R")
# A sample has a weight of one tenth; after a second without samples, the average has lost two
# thirds. A replica that was slow once is therefore tried again soon, and a slow replica stays the
# second choice.
_SAMPLE_WEIGHT = 0.1
_FADE_S = 1.0


class FadingAverage:
    """An exponentially weighted average of latencies that falls while nothing is observed."""

    def __init__(self) -> None:
        self._average_s = 0.0
        self._at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """Records a latency.

        Args:
            seconds: The latency.
            now: Seconds of a monotonic clock; always the same clock.
        """
        before = self.value(now)
        self._average_s = before + _SAMPLE_WEIGHT * (seconds - before) if before else seconds
        self._at = now

    def value(self, now: float) -> float:
        """Returns the average in seconds; 0 before the first sample."""
        return self._average_s * math.exp(min(0.0, self._at - now) / _FADE_S)


class Peer(Protocol):
    """The client methods that a replica needs."""

    @property
    def address(self) -> str:
        """Address of the server."""
        ...

    async def status(self, timeout_s: float) -> Mapping[ShardKey, ShardProgress | None]:
        """Returns the ready shards of the server, with the progress of live changes in each."""
        ...


_P = TypeVar("_P", bound=Peer)


class Replica(Generic[_P]):
    """A shard server that holds copies of shards.

    Args:
        peer: Client of the server; closed by its owner.

    shards: The shards that the server can answer from, as of its last status, with the progress of
    live changes in each (None if it follows no change log). in_flight: Number of running calls.
    """

    def __init__(self, peer: _P) -> None:
        self.peer = peer
        self.health = ReplicaHealth()
        self.shards: Mapping[ShardKey, ShardProgress | None] = {}
        self.in_flight = 0
        self._latency = FadingAverage()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._poll_now = asyncio.Event()
        self._reported = ReplicaState.AWAY
        self._is_ready = metrics.replica_ready.labels(peer.address)
        self._is_ready.set(0)

    @property
    def address(self) -> str:
        """Address of the server."""
        return self.peer.address

    def holds(self, key: ShardKey) -> bool:
        """Returns whether the server is reachable and holds this shard, by its last status."""
        return not self.health.away and key in self.shards

    def stale(self, key: ShardKey) -> bool:
        """Returns whether its answers from this shard may be behind the change log."""
        progress = self.shards.get(key)
        return progress is not None and bool(progress.applied.stale)

    def load(self, now: float) -> float:
        """Returns the expected seconds for a new call and the running ones together."""
        return (self.in_flight + 1) * self._latency.value(now)

    async def call(self, key: ShardKey, send: Callable[[_P], Awaitable[_R]]) -> _R:
        """Makes a call and records its outcome."""
        start = time.monotonic()
        self.in_flight += 1
        try:
            answer = await send(self.peer)
        except NearlineError as error:
            self._record_failure(key, error, start)
            raise
        except asyncio.CancelledError:
            # The caller gave up: the call would have taken at least this long.
            self._observe(start)
            raise
        finally:
            self.in_flight -= 1
        self._observe(start)
        self.health.record_success()
        return answer

    def run_task(self, call: Coroutine[Any, Any, _R]) -> asyncio.Task[_R]:
        """Runs a call as a task that is cancelled if the server stops answering."""
        task = asyncio.ensure_future(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def record_slow(self) -> None:
        """Records that a hedged call to another replica was faster."""
        if self.health.record_failure(time.monotonic(), "it was repeatedly slower than others"):
            self._report_ejection("slow")

    async def poll(self) -> None:
        """Requests the status of the server and records the answer."""
        try:
            shards = await self.peer.status(_POLL_TIMEOUT_S)
        except DeadlineExceeded as error:
            if self.health.record_silence(time.monotonic(), error.message):
                self._report_ejection("silent")
            for task in tuple(self._tasks):
                task.cancel()
        except NearlineError as error:
            self.health.record_lost(error.message)
        else:
            self.health.record_status()
            self.shards = shards
        self._report_state()

    async def watch(self) -> None:
        """Requests the status twice a second, and at once after a connection is lost."""
        while True:
            self._poll_now.clear()
            try:
                await self.poll()
            except Exception:
                # The next status request may succeed; calls go on in the meantime.
                _log.exception("status request failed", extra={"address": self.address})
            with contextlib.suppress(TimeoutError):
                # Jitter: routers that started together should not poll together.
                async with asyncio.timeout(_POLL_S * random.uniform(0.8, 1.2)):
                    await self._poll_now.wait()

    def _record_failure(self, key: ShardKey, error: NearlineError, start: float) -> None:
        if isinstance(error, SnapshotGone | NotFound):
            self.shards = {one: state for one, state in self.shards.items() if one != key}
        elif isinstance(error, NotReady) and not isinstance(error, NotApplied):
            self.health.record_lost(error.message)
            self._poll_now.set()
            self._report_state()
        elif isinstance(error, Overloaded | DeadlineExceeded | NotApplied):
            # Not necessarily a fault of the replica: there may be too many callers, their deadlines
            # may be too short, or they may need a state that no replica has. The recorded latency
            # makes other replicas the first choice.
            self._observe(start)
        elif isinstance(error, InternalError) and self.health.record_failure(
            time.monotonic(), error.message
        ):
            self._report_ejection("errors")

    def _observe(self, start: float) -> None:
        now = time.monotonic()
        self._latency.observe(now - start, now)

    def _report_ejection(self, reason: str) -> None:
        metrics.ejections.labels(self.address, reason).inc()
        self._report_state()

    def _report_state(self) -> None:
        """Sets the metric, and logs each change of state once."""
        state = self.health.state(time.monotonic())
        self._is_ready.set(state in (ReplicaState.READY, ReplicaState.PROBED))
        if state is self._reported:
            return
        usable = (ReplicaState.READY, ReplicaState.PROBED)
        if (state in usable) != (self._reported in usable):
            _log.log(
                logging.INFO if state in usable else logging.WARNING,
                "replica changed",
                extra={
                    "address": self.address,
                    "state": state.value,
                    "reason": "" if state in usable else self.health.reason,
                },
            )
        self._reported = state
