"""One copy of some shards on a server: what it holds, how it does, and the calls to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
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
from retrieval.live.progress import ShardProgress
from retrieval.protocols import metrics
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas.health import ReplicaHealth, ReplicaState
from retrieval.shards.replicas.latency import FadingAverage

_POLL_S = 0.5
_POLL_TIMEOUT_S = 1.0
_log = logging.getLogger(__name__)
_R = TypeVar("_R")


class Peer(Protocol):
    """What a replica needs of a client."""

    @property
    def address(self) -> str:
        """Where it is."""
        ...

    async def status(self, timeout_s: float) -> Mapping[ShardKey, ShardProgress | None]:
        """Returns what the server can answer from now, and how far live changes are beside it."""
        ...


_P = TypeVar("_P", bound=Peer)


class Replica(Generic[_P]):
    """A server that holds copies of shards.

    Args:
        peer: The client to it; closed by its owner.
    """

    def __init__(self, peer: _P) -> None:
        self.peer = peer
        self.health = ReplicaHealth()
        self.held: Mapping[ShardKey, ShardProgress | None] = {}
        self.in_flight = 0
        self._latency = FadingAverage()
        self._attempts: set[asyncio.Task[Any]] = set()
        self._asked = asyncio.Event()
        self._told = ReplicaState.AWAY
        self._is_ready = metrics.replica_ready.labels(peer.address)
        self._is_ready.set(0)

    @property
    def address(self) -> str:
        """Where it is."""
        return self.peer.address

    def holds(self, key: ShardKey) -> bool:
        """Returns whether it answers, and said that it can answer from this."""
        return not self.health.away and key in self.held

    def stale(self, key: ShardKey) -> bool:
        """Returns whether it said that its answers from this may be behind the change log."""
        progress = self.held.get(key)
        return progress is not None and bool(progress.applied.stale)

    def load(self, now: float) -> float:
        """Returns its cost to a new call: the seconds that it and those before it would take."""
        return (self.in_flight + 1) * self._latency.value(now)

    async def ask(self, key: ShardKey, send: Callable[[_P], Awaitable[_R]]) -> _R:
        """Makes a call, and remembers what became of it."""
        start = time.monotonic()
        self.in_flight += 1
        try:
            answer = await send(self.peer)
        except NearlineError as error:
            self._failed(key, error, start)
            raise
        except asyncio.CancelledError:
            # Nobody waits any more: it took at least this long.
            self._observe(start)
            raise
        finally:
            self.in_flight -= 1
        self._observe(start)
        self.health.succeeded()
        return answer

    def attempt(self, call: Coroutine[Any, Any, _R]) -> asyncio.Task[_R]:
        """Runs a call as a task that ends, cancelled, where the replica falls silent."""
        task = asyncio.ensure_future(call)
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        return task

    def was_beaten(self) -> None:
        """Takes in that another replica, asked later, answered earlier."""
        if self.health.failed(time.monotonic(), "it was slower than others again and again"):
            self._ejected("slow")

    async def poll(self) -> None:
        """Asks it for its status, and takes the answer in."""
        try:
            held = await self.peer.status(_POLL_TIMEOUT_S)
        except DeadlineExceeded as error:
            if self.health.was_silent(time.monotonic(), error.message):
                self._ejected("silent")
            for task in tuple(self._attempts):
                task.cancel()
        except NearlineError as error:
            self.health.lost(error.message)
        else:
            self.health.answered()
            self.held = held
        self._tell()

    async def watch(self) -> None:
        """Asks for its status twice a second, and at once after a connection was lost."""
        while True:
            self._asked.clear()
            try:
                await self.poll()
            except Exception:
                # Whatever it was, the next answer may be good; calls go on meanwhile.
                _log.exception("replica not asked", extra={"address": self.address})
            with contextlib.suppress(TimeoutError):
                # Routers that started together should not ask together.
                async with asyncio.timeout(_POLL_S * random.uniform(0.8, 1.2)):
                    await self._asked.wait()

    def _failed(self, key: ShardKey, error: NearlineError, start: float) -> None:
        if isinstance(error, SnapshotGone | NotFound):
            self.held = {one: told for one, told in self.held.items() if one != key}
        elif isinstance(error, NotReady) and not isinstance(error, NotApplied):
            self.health.lost(error.message)
            self._asked.set()
            self._tell()
        elif isinstance(error, Overloaded | DeadlineExceeded | NotApplied):
            # Not its fault alone: callers may be too many, in too much of a hurry, or ask for a
            # state that nobody has. The time taken makes others the first choice.
            self._observe(start)
        elif isinstance(error, InternalError) and self.health.failed(
            time.monotonic(), error.message
        ):
            self._ejected("errors")

    def _observe(self, start: float) -> None:
        now = time.monotonic()
        self._latency.observe(now - start, now)

    def _ejected(self, reason: str) -> None:
        metrics.ejections.labels(self.address, reason).inc()
        self._tell()

    def _tell(self) -> None:
        """Logs a change of state once, and sets the metric."""
        state = self.health.state(time.monotonic())
        self._is_ready.set(state in (ReplicaState.READY, ReplicaState.PROBED))
        if state is self._told:
            return
        usable = (ReplicaState.READY, ReplicaState.PROBED)
        if (state in usable) != (self._told in usable):
            _log.log(
                logging.INFO if state in usable else logging.WARNING,
                "replica changed",
                extra={
                    "address": self.address,
                    "state": state.value,
                    "reason": "" if state in usable else self.health.why,
                },
            )
        self._told = state
