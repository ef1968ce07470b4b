"""Calls to a shard that has replicas: retried where one fails, hedged where one dawdles."""

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
from nearline.quantiles import RecentQuantiles
from retrieval.protocols import metrics
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas.load_balancer import choose_replica
from retrieval.shards.replicas.replica import Peer, Replica
from retrieval.shards.replicas.retry_budget import RetryBudget

_P = TypeVar("_P", bound=Peer)
_R = TypeVar("_R")
# Another replica may answer: this one is away, behind, full, or has a fault of its own. Where it
# had begun already, asking twice does no harm: every call to a shard only reads.
_ASK_ANOTHER = (NotReady, SnapshotGone, NotFound, Overloaded, InternalError)
# A hedge while no percentile is known, and the soonest one: below it, a timer tells nothing.
_FIRST_HEDGE_S = 0.05
_SOONEST_HEDGE_S = 0.001
# One call in twenty is over the 95th percentile by definition, which uses up the budget: so many
# are kept for the calls to a replica that has hung.
_HEDGES_KEPT = 10.0


class HedgedCalls(Generic[_P]):
    """Makes the calls to one shard.

    A call goes to one replica. Where that fails by a fault of its own, the next is asked, within
    the retry budget (a tenth of the calls); where it is gone, without one: it does no more work, so
    its calls move and do not multiply. Where a call takes longer than 95 of 100 calls did lately,
    another is asked as well, within the hedge budget (a twentieth): the first answer wins, and the
    other call is cancelled. Half of the budget is for those that go on waiting.

    Args:
        replicas: All replicas of the shard.
        collection: Collection name.
        number: Shard number.
    Source: Dean and Barroso, "The Tail at Scale", 2013: hedged requests after the 95th percentile.
    """

    def __init__(self, replicas: Sequence[Replica[_P]], collection: str, number: int) -> None:
        self.replicas = tuple(replicas)
        self.name = f"shard {number} of {collection!r}"
        # Saved up for the moment when a server falls silent with calls on their way.
        self.retries = RetryBudget(0.1, floor_per_s=2.0, burst=100.0)
        self.hedges = RetryBudget(0.05, floor_per_s=1.0, burst=2 * _HEDGES_KEPT)
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
            key: What to ask for.
            send: Makes the call to a peer, within the caller's deadline.
            latencies: The 95th percentile of similar calls, which decides when to hedge. If None,
                the call is never hedged.
            waits: The replica may have to wait for live changes: the call is hedged, later, since
                another may have them, but says nothing of how long calls take or who is slow.
        Raises: what the last replica raised. NotReady: none answers. SnapshotGone: none holds it.
        """
        start = time.monotonic()
        first = choose_replica(self.replicas, key, start)
        if first is None:
            raise self._nobody(key)
        if len(self.replicas) == 1:
            # Nobody else to ask: no task and no timer.
            return await first.ask(key, send)
        self.retries.earn()
        self.hedges.earn()
        hedge_s = None
        if latencies is not None:
            soonest_s = _FIRST_HEDGE_S if waits else _SOONEST_HEDGE_S
            p95_s = latencies.values[0] if latencies.values else _FIRST_HEDGE_S
            hedge_s = max(soonest_s, p95_s)
        answer = await _Race(self, key, send, blames=not waits).run(first, hedge_s)
        if latencies is not None and not waits:
            latencies.observe(time.monotonic() - start)
        return answer

    def _nobody(self, key: ShardKey) -> NearlineError:
        if any(not one.health.away for one in self.replicas):
            return SnapshotGone(
                f"no replica of {self.name} holds snapshot {key.snapshot_id}; retry the whole "
                "request"
            )
        reasons = "; ".join(f"{one.address}: {one.health.why}" for one in self.replicas)
        return NotReady(f"no replica of {self.name} answers ({reasons})")


class _Race(Generic[_P, _R]):
    """One call, on its way to one replica or several."""

    def __init__(
        self,
        calls: HedgedCalls[_P],
        key: ShardKey,
        send: Callable[[_P], Awaitable[_R]],
        *,
        blames: bool,
    ) -> None:
        self._calls = calls
        self._key = key
        self._send = send
        self._blames = blames
        self._tried: list[Replica[_P]] = []
        self._running: dict[Task[_R], Replica[_P]] = {}
        self._hedge: Task[_R] | None = None

    async def run(self, first: Replica[_P], hedge_s: float | None) -> _R:
        self._start(first)
        kept = _HEDGES_KEPT
        try:
            while True:
                done, _ = await asyncio.wait(
                    self._running, timeout=hedge_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    assert hedge_s is not None
                    # Where it may not be made now, later: the first replica may have hung.
                    hedge_s = None if self._start_hedge(keep=kept) else 2 * hedge_s
                    kept = 0.0
                    continue
                won, error, gone = None, None, False
                for task in done:
                    error = self._error(task)
                    won = task if error is None else won
                    # Not one that is silent: it may be at work on the call all the same. Nor one
                    # that is behind: it has waited as long as a call may.
                    gone = (
                        isinstance(error, NotReady)
                        and not isinstance(error, NotApplied)
                        and not task.cancelled()
                    )
                if won is not None:
                    self._count(won)
                    return won.result()
                assert error is not None
                if not isinstance(error, _ASK_ANOTHER):
                    raise error
                if not self._start_retry(within_budget=not gone) and not self._running:
                    raise error
        finally:
            for task in self._running:
                task.cancel()

    def _start(self, replica: Replica[_P]) -> Task[_R]:
        self._tried.append(replica)
        task = replica.attempt(replica.ask(self._key, self._send))
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
        self._start(other)
        return True

    def _error(self, task: Task[_R]) -> BaseException | None:
        """Takes a call that ended off the course; gives its error."""
        replica = self._running.pop(task)
        if task.cancelled():
            # By `Replica.attempt`, for it is silent; it may be asked again if nobody else is there.
            self._tried.remove(replica)
            return NotReady(f"{replica.address} is silent: {replica.health.why}")
        return task.exception()

    def _count(self, won: Task[_R]) -> None:
        if self._hedge is None:
            return
        self._calls.count_hedge["won" if won is self._hedge else "lost"]()
        if won is self._hedge and self._blames:
            for replica in self._running.values():
                replica.was_beaten()
