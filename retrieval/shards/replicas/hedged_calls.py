"""Calls to a replicated shard: retried when a replica fails, hedged when one is slow."""

from __future__ import annotations

import asyncio
import time
from asyncio import Task
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from nearline.errors import (
    InternalError,
    NearlineError,
    NotApplied,
    NotFound,
    NotReady,
    Overloaded,
    SnapshotGone,
)
from nearline.tracing.spans import note_event
from retrieval.balancing.retry_budget import RetryBudget
from retrieval.protocols import metrics
from retrieval.protocols.quantiles import RecentQuantiles
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas.load_balancer import choose_replica
from retrieval.shards.replicas.replica import Peer, Replica

_P = TypeVar("_P", bound=Peer)
_R = TypeVar("_R")
# After these errors a different replica may answer: this one is unavailable, behind, overloaded, or
# faulty. Even if it has begun the call, repeating the call is harmless, because calls to a shard
# only read.
_RETRYABLE = (NotReady, SnapshotGone, NotFound, Overloaded, InternalError)
# Delay of a hedge while no percentile is known, and the shortest delay: timers are no more precise.
_DEFAULT_HEDGE_S = 0.05
_MIN_HEDGE_S = 0.001
# By definition, one call in twenty exceeds the 95th percentile, which uses up the budget. Therefore
# this many hedges are reserved for calls to a replica that hangs.
_RESERVED_HEDGES = 10.0


class HedgedCalls(Generic[_P]):
    """Makes the calls to one shard.

    A call goes to one replica. If that replica fails through a fault of its own, the call is
    retried on another, within the retry budget (a tenth of the calls). If the replica is gone, the
    retry needs no budget: the replica does no more work, so the number of running calls does not
    grow. If a replica was lost while it worked on the call, the call may be the cause; it is then
    retried within the budget, and on one other replica at most. If a call takes longer than 95 of
    100 recent calls, it is hedged: another replica is called too, within the hedge budget (a
    twentieth), the first answer wins, and the other call is cancelled. Half of the hedge budget is
    reserved for calls that keep waiting.

    Args:
        replicas: All replicas of the shard.
        collection: Collection name.
        number: Shard number.
    Source: Dean and Barroso, "The Tail at Scale", 2013: hedged requests after the 95th percentile.
    """

    def __init__(self, replicas: Sequence[Replica[_P]], collection: str, number: int) -> None:
        self.replicas = tuple(replicas)
        self.name = f"shard {number} of {collection!r}"
        # The burst covers the moment when a server stops answering with calls in flight.
        self.retries = RetryBudget(0.1, floor_per_s=2.0, burst=100.0)
        self.hedges = RetryBudget(0.05, floor_per_s=1.0, burst=2 * _RESERVED_HEDGES)
        labels = (collection, str(number))
        self.count_retry = {
            outcome: metrics.retries.labels(*labels, outcome).inc for outcome in ("made", "refused")
        }
        self.count_hedge = {
            outcome: metrics.hedges.labels(*labels, outcome).inc
            for outcome in ("won", "lost", "refused")
        }

    async def call(
        self,
        key: ShardKey,
        send: Callable[[_P], Awaitable[_R]],
        latencies: RecentQuantiles | None = None,
        *,
        waits: bool = False,
    ) -> _R:
        """Returns the first answer.

        Args:
            key: Shard to call.
            send: Makes the call to a peer, within the caller's deadline.
            latencies: The 95th percentile of similar calls, which decides when to hedge. If None,
                the call is never hedged.
            waits: Whether the replica may have to wait for live changes. Such a call is hedged
                later, since another replica may have them already, and neither counts as a sample
                of latency nor marks a replica as slow.
        Raises: The error of the last replica. NotReady: no replica answers. SnapshotGone: no
            replica holds the snapshot.
        """
        start = time.monotonic()
        first = choose_replica(self.replicas, key, start)
        if first is None:
            raise self._unavailable(key)
        if len(self.replicas) == 1:
            # No alternative, so neither task nor timer is needed.
            return await first.call(key, send)
        self.retries.earn()
        self.hedges.earn()
        hedge_s = None
        if latencies is not None:
            min_s = _DEFAULT_HEDGE_S if waits else _MIN_HEDGE_S
            p95_s = latencies.values[0] if latencies.values else _DEFAULT_HEDGE_S
            hedge_s = max(min_s, p95_s)
        answer = await _Race(self, key, send, record_slow=not waits).run(first, hedge_s)
        if latencies is not None and not waits:
            latencies.observe(time.monotonic() - start)
        return answer

    def _unavailable(self, key: ShardKey) -> NearlineError:
        if any(not one.health.away for one in self.replicas):
            return SnapshotGone(
                f"no replica of {self.name} holds snapshot {key.snapshot_id}; retry the whole "
                "request"
            )
        reasons = "; ".join(f"{one.address}: {one.health.reason}" for one in self.replicas)
        return NotReady(f"no replica of {self.name} answers ({reasons})")


class _Race(Generic[_P, _R]):
    """One call that runs on one or more replicas."""

    def __init__(
        self,
        calls: HedgedCalls[_P],
        key: ShardKey,
        send: Callable[[_P], Awaitable[_R]],
        *,
        record_slow: bool,
    ) -> None:
        self._calls = calls
        self._key = key
        self._send = send
        self._record_slow = record_slow
        self._tried: list[Replica[_P]] = []
        self._running: dict[Task[_R], Replica[_P]] = {}
        self._hedge: Task[_R] | None = None
        # Whether a replica was lost while it worked on the call.
        self._peer_died = False

    async def run(self, first: Replica[_P], hedge_s: float | None) -> _R:
        self._start(first)
        reserve = _RESERVED_HEDGES
        try:
            while True:
                done, _ = await asyncio.wait(
                    self._running, timeout=hedge_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    assert hedge_s is not None
                    # Without budget, try again later: the first replica may hang.
                    hedge_s = (
                        None if self._exhausted or self._start_hedge(keep=reserve) else 2 * hedge_s
                    )
                    reserve = 0.0
                    continue
                won, error, gone = None, None, False
                for task in done:
                    error = self._remove(task)
                    won = task if error is None else won
                    died = isinstance(error, NearlineError) and error.peer_died
                    self._peer_died |= died
                    # A silent replica is not gone: it may still be working on the call. Nor is one
                    # that is behind: it has waited as long as a call may.
                    gone = (
                        isinstance(error, NotReady)
                        and not isinstance(error, NotApplied)
                        and not task.cancelled()
                        and not died
                    )
                if won is not None:
                    self._count(won)
                    return won.result()
                assert error is not None
                if not isinstance(error, _RETRYABLE):
                    raise error
                retried = not self._exhausted and self._start_retry(within_budget=not gone)
                if not retried and not self._running:
                    raise error
        finally:
            for task in self._running:
                task.cancel()

    @property
    def _exhausted(self) -> bool:
        """Whether no other replica may be put at risk."""
        return self._peer_died and len(self._tried) > 1

    def _start(self, replica: Replica[_P]) -> Task[_R]:
        self._tried.append(replica)
        task = replica.run_task(replica.call(self._key, self._send))
        self._running[task] = replica
        return task

    def _start_hedge(self, keep: float) -> bool:
        now = time.monotonic()
        other = choose_replica(self._calls.replicas, self._key, now, tried=self._tried)
        if other is None:
            return False
        if not self._calls.hedges.spend(now, keep):
            self._calls.count_hedge["refused"]()
            return False
        note_event("hedge", {"replica": other.address})
        self._hedge = self._start(other)
        return True

    def _start_retry(self, within_budget: bool) -> bool:
        now = time.monotonic()
        other = choose_replica(self._calls.replicas, self._key, now, tried=self._tried)
        if other is None:
            return False
        if within_budget and not self._calls.retries.spend(now):
            self._calls.count_retry["refused"]()
            return False
        self._calls.count_retry["made"]()
        note_event("retry", {"replica": other.address})
        self._start(other)
        return True

    def _remove(self, task: Task[_R]) -> BaseException | None:
        """Removes a finished call from the race and returns its error."""
        replica = self._running.pop(task)
        if task.cancelled():
            # `Replica.run_task` cancelled the call, because the replica is silent; the replica may
            # be tried again as a last resort.
            self._tried.remove(replica)
            return NotReady(f"{replica.address} is silent: {replica.health.reason}")
        return task.exception()

    def _count(self, won: Task[_R]) -> None:
        if self._hedge is None:
            return
        self._calls.count_hedge["won" if won is self._hedge else "lost"]()
        if won is self._hedge and self._record_slow:
            for replica in self._running.values():
                replica.record_slow()
