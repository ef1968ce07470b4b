"""Continuous micro-batching: requests of the event loop, run by one thread per model slot."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from embedding.backend import Engine, Fallback, round_up
from embedding.metrics import Metrics
from embedding.queue import Batch, BatchLimits, BatchQueue, DropReason, InferenceJob
from nearline.access.method_guard import current_caller
from nearline.contract import CPU_RUNG, Lane, ServedBy, Source
from nearline.errors import DeadlineExceeded, InternalError, NotReady, Overloaded

# Busy seconds after which a measurement weighs 1/e.
_MEMORY_S = 2.0
# An idle model takes a request whatever its rate was, if it was measured longer ago than this:
# after one slow batch, such as on a machine that stood still, only a new one can correct the rate.
_TRUSTED_S = 1.0
_SHORTEST_RETRY_S = 0.005


class RateMeter:
    """Tokens per second while the model was busy, exponentially weighted by busy time.

    Args:
        tokens_per_s: Initial estimate; with 0, everything is admitted until a batch was measured.
    """

    def __init__(self, tokens_per_s: float = 0.0) -> None:
        self._seconds = _MEMORY_S if tokens_per_s > 0 else 0.0
        self._tokens = tokens_per_s * self._seconds
        self._running = 0
        self._mark = 0.0
        self.has_measured = False

    @property
    def tokens_per_s(self) -> float:
        """The rate; 0 before the first measurement."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def rate_to_trust(self, now: float) -> float:
        """Returns the rate; 0 if the model has been idle for so long that it may have changed."""
        idle = self._running == 0 and self.has_measured and now - self._mark > _TRUSTED_S
        return 0.0 if idle else self.tokens_per_s

    def started(self, now: float) -> None:
        """Records that a batch started."""
        if self._running == 0:
            self._mark = now
        self._running += 1

    def finished(self, tokens: int, now: float) -> None:
        """Records that a batch with this many tokens (0 if it failed) ended."""
        self._running -= 1
        self.has_measured = True
        spent = max(now - self._mark, 1e-9)
        self._mark = now
        kept = math.exp(-spent / _MEMORY_S)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + spent


def admit(
    *,
    own_tokens: int,
    lane_tokens: int,
    tenant_tokens: int,
    ahead_tokens: int,
    max_queued_tokens: int,
    tokens_per_s: float,
    left_s: float,
) -> None:
    """Refuses a request that could not be answered in time.

    A tenant may take as much of the queue as it leaves to the others, so that one alone never keeps
    them out. Source: Choudhury and Hahne, Dynamic queue length thresholds (1998).

    Args:
        own_tokens: Tokens of the request.
        lane_tokens: Tokens that wait in its lane; the limit is per lane, so that bulk work cannot
            keep a query out.
        tenant_tokens: Those of them that are its tenant's.
        ahead_tokens: Tokens that run before the request: those in the model now, and those of
            `BatchQueue.ahead`.
        max_queued_tokens: Tokens allowed to wait in a lane. A tenant that has none there may add a
            request of any size.
        tokens_per_s: Measured rate; 0 if unknown.
        left_s: Seconds to the caller's deadline; may be infinite.
    Raises: Overloaded: names the seconds after which the request would be admitted at the measured
        rate.
    """
    excess = lane_tokens + tenant_tokens + own_tokens - max_queued_tokens
    if tenant_tokens > 0 and excess > 0:
        raise Overloaded(
            f"{lane_tokens} tokens are waiting, at most {max_queued_tokens} may, and the request "
            f"has {own_tokens}; its tenant, which has {tenant_tokens} of them, may take as many as "
            "it leaves to others: retry later, or send fewer texts at once",
            retry_after_s=_retry(min(excess, lane_tokens) / tokens_per_s if tokens_per_s else 1.0),
        )
    if tokens_per_s <= 0 or math.isinf(left_s):
        return
    predicted_s = (ahead_tokens + own_tokens) / tokens_per_s
    if predicted_s > left_s:
        raise Overloaded(
            f"the request would take {predicted_s:.3f} s at the measured {tokens_per_s:.0f} tokens "
            f"per second, where its tenant's waiting work counts twice, and has {left_s:.3f} s "
            "left; raise the timeout, send fewer texts at once, or retry later",
            retry_after_s=_retry(predicted_s - left_s),
        )


def _retry(seconds: float) -> float:
    return max(seconds, _SHORTEST_RETRY_S)


_log = logging.getLogger(__name__)
# If this many texts fail alone in a row, the model is broken, not the texts.
_BROKEN_AFTER = 8
_STOPPING = "the service is stopping; ask another replica"


Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """Rows (n, width) float32 of one request, and its seconds in the queue and in the model.

    fallback_reason: Why the CPU stood in for a GPU; empty if it did not.
    """

    rows: NDArray[np.float32]
    queue_s: float
    inference_s: float
    fallback_reason: str = ""

    @property
    def served_by(self) -> ServedBy:
        """The source of the rows: live, or the CPU that stood in for a GPU."""
        if not self.fallback_reason:
            return ServedBy()
        return ServedBy(source=Source.FALLBACK, rung=CPU_RUNG, reason=self.fallback_reason)


class Batcher(Generic[Item]):
    """Runs requests in batches within a token budget; use it from one event loop.

    Args:
        engine: The model.
        budget: Maximum padded tokens of a batch.
        max_queued_tokens: Tokens allowed to wait in each lane.
        tokens_per_s: Initial estimate of the rate; 0 if unknown.
        metrics: Metrics to update.
        field: Field of the request that holds the items, for errors.
        clock: Monotonic seconds.
        on_broken: Called once, on the loop, if the model fails on everything.
        fallback: What stands in for the GPUs of the engine; None: it has none.
    """

    def __init__(
        self,
        engine: Engine[Item],
        *,
        budget: int,
        max_queued_tokens: int,
        tokens_per_s: float = 0.0,
        metrics: Metrics | None = None,
        field: str = "texts",
        clock: Callable[[], float] = time.monotonic,
        on_broken: Callable[[], None] | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        self._engine = engine
        self._max_queued_tokens = max_queued_tokens
        self._metrics = metrics or Metrics()
        self._field = field
        self._clock = clock
        self._on_broken = on_broken
        self._fallback = fallback
        if fallback is not None:
            self._metrics.watch_gpus(fallback.configured_gpus, fallback.count_gpus)
        self._gpu_limits = BatchLimits.for_gpu(budget)
        # Shared with the model threads, guarded by the lock.
        self._work = threading.Condition()
        self._lanes = BatchQueue(budget, pad_multiple=engine.pad_multiple)
        self._lanes.tokens_per_s = tokens_per_s
        self._meter = RateMeter(tokens_per_s)
        self._running_tokens = 0
        self._failures_in_a_row = 0
        self._stopping = False
        # Used by the loop only.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._futures: dict[InferenceJob, asyncio.Future[None]] = {}
        # One request of each tenant waits for room; the others wait for their turn to do so.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._freed = asyncio.Event()
        self._threads = [
            threading.Thread(
                target=self._work_through, args=(slot,), name=f"model-{slot}", daemon=True
            )
            for slot in range(engine.slots)
        ]

    @property
    def tokens_per_s(self) -> float:
        """The recent rate; 0 before the first batch."""
        return self._meter.tokens_per_s if self._meter.has_measured else 0.0

    def start(self) -> None:
        """Starts the model threads; call it on the loop."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    async def close(self) -> None:
        """Waits for running batches, fails waiting requests, and releases the GPUs."""
        with self._work:
            self._stopping = True
            self._work.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join)
        if self._fallback is not None:
            await asyncio.to_thread(self._fallback.close)
        for job in list(self._futures):
            self._fail(job, NotReady(_STOPPING))
        self._freed.set()

    def check(self, lane: Lane, left_s: float, own_tokens: int = 0) -> None:
        """Refuses a request that the queue cannot accept or finish in time.

        Args:
            lane: Lane of the request.
            left_s: Seconds to its deadline; may be infinite.
            own_tokens: Its number of tokens, if known.
        Raises: Overloaded.
        """
        tenant, now = current_caller().tenant, self._clock()
        with self._work:
            waiting = self._lanes.tokens(lane)
            of_tenant = self._lanes.tokens(lane, tenant)
            ahead = self._running_tokens
            if not math.isinf(left_s):
                ahead += self._lanes.ahead(lane, tenant, own_tokens, now + left_s, now)
            rate = self._meter.rate_to_trust(now)
        try:
            admit(
                own_tokens=own_tokens,
                lane_tokens=waiting,
                tenant_tokens=of_tenant,
                ahead_tokens=ahead,
                max_queued_tokens=self._max_queued_tokens,
                tokens_per_s=rate,
                left_s=left_s,
            )
        except Overloaded:
            self._metrics.lanes[lane].refused.inc()
            raise

    async def infer(
        self,
        items: Sequence[Item],
        lane: Lane,
        *,
        left_s: float = math.inf,
        wait: bool = False,
    ) -> InferenceResult:
        """Runs one request; cancelling it drops items that have not run yet.

        Args:
            items: At least one; the len of each is its tokens.
            lane: Queue to wait in.
            left_s: Seconds to the caller's deadline.
            wait: Whether to wait for room in the queue instead of being refused.
        Raises: Overloaded; DeadlineExceeded; NotReady: the service stops; InternalError: the model
            failed on a text, whose index the error names.
        """
        assert self._loop is not None
        tokens, tenant = sum(len(item) for item in items), current_caller().tenant
        if wait:
            await self._wait_for_room(lane, tokens, tenant)
        else:
            self.check(lane, left_s, tokens)
        now = self._clock()
        job = InferenceJob.of(items, lane, now + left_s, self._engine.width, tenant)
        future: asyncio.Future[None] = self._loop.create_future()
        self._futures[job] = future
        with self._work:
            if self._stopping:
                future.set_exception(NotReady(_STOPPING))
            else:
                self._lanes.push(job, now)
                # Each thread takes one batch; a small request needs only one thread.
                self._work.notify(len(items))
        try:
            await future
        finally:
            del self._futures[job]
            if job.pending:
                late = self._clock() >= job.deadline
                self._drop(job, DropReason.EXPIRED if late else DropReason.CANCELLED)
        started = job.started_at if job.started_at is not None else now
        return InferenceResult(
            job.rows, started - now, self._clock() - started, job.fallback_reason
        )

    # --- on the loop ---

    async def _wait_for_room(self, lane: Lane, tokens: int, tenant: str) -> None:
        """Waits, first come first served within a tenant, until there is room for these tokens."""
        async with self._turns.setdefault(tenant, asyncio.Lock()):
            while not (self._stopping or self._has_room(lane, tokens, tenant)):
                self._freed.clear()
                await self._freed.wait()

    def _has_room(self, lane: Lane, tokens: int, tenant: str) -> bool:
        with self._work:
            waiting, own = self._lanes.tokens(lane), self._lanes.tokens(lane, tenant)
        return own == 0 or waiting + own + tokens <= self._max_queued_tokens

    def _finished(self, batch: Batch) -> None:
        for entry in batch.entries:
            job = entry.job
            job.pending -= 1
            if job.pending == 0:
                future = self._futures.get(job)
                if future is not None and not future.done():
                    future.set_result(None)
        self._after_batch()

    def _expired(self, jobs: Sequence[InferenceJob]) -> None:
        for job in jobs:
            self._fail(
                job,
                DeadlineExceeded(
                    "the deadline passed while the request waited for the model; raise the timeout "
                    "or send fewer texts at once"
                ),
            )
        self._after_batch()

    def _poisoned(self, batch: Batch, error: Exception) -> None:
        entry = batch.entries[0]
        error_id = secrets.token_hex(8)
        _log.error(
            "the model failed on one text alone",
            exc_info=error,
            extra={"error_id": error_id, "index": entry.row, "tokens": entry.length},
        )
        field = f"{self._field}[{entry.row}]"
        failure = InternalError(
            f"the model failed on {field} (error {error_id}, see the server's log); remove "
            "this text; the others were not at fault",
            field=field,
        )
        failure.__cause__ = error
        self._fail(entry.job, failure)
        self._drop(entry.job, DropReason.FAILED)
        self._after_batch()

    def _broken(self) -> None:
        if self._on_broken is not None:
            on_broken, self._on_broken = self._on_broken, None
            on_broken()

    def _fail(self, job: InferenceJob, error: Exception) -> None:
        future = self._futures.get(job)
        if future is not None and not future.done():
            future.set_exception(error)

    def _drop(self, job: InferenceJob, reason: DropReason) -> None:
        with self._work:
            self._lanes.drop(job, reason)
        self._after_batch()

    def _after_batch(self) -> None:
        with self._work:
            drops = dict(self._lanes.drops)
            self._lanes.drops.clear()
            waiting = {lane: self._lanes.tokens(lane) for lane in Lane}
            rate = self._meter.tokens_per_s
        for (lane, reason), count in drops.items():
            self._metrics.lanes[lane].dropped({reason: count})
        for lane, tokens in waiting.items():
            self._metrics.lanes[lane].queued.set(tokens)
        self._metrics.rate.set(rate)
        self._freed.set()

    # --- in the model threads ---

    def _work_through(self, slot: int) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            try:
                # Only `infer` puts items in.
                items = cast("list[Item]", [entry.item for entry in batch.entries])
                rows = self._engine.run(items, slot)
            # Whatever the engine raises, the batch failed and the slot continues.
            except Exception as error:
                self._batch_failed(batch, error)
            else:
                for row, entry in enumerate(batch.entries):
                    entry.job.rows[entry.row] = rows[row]
                if self._fallback is not None and (reason := self._fallback.reason(slot)):
                    self._metrics.fallbacks.inc()
                    for entry in batch.entries:
                        entry.job.fallback_reason = reason
                self._batch_ended(batch, batch.tokens)
                self._metrics.lanes[batch.lane].batch(
                    len(batch.entries), batch.tokens, self._padded_tokens(batch)
                )
                self._tell(self._finished, batch)

    def _padded_tokens(self, batch: Batch) -> int:
        longest = max(entry.length for entry in batch.entries)
        return len(batch.entries) * round_up(longest, self._engine.pad_multiple)

    def _next_batch(self) -> Batch | None:
        with self._work:
            while not self._stopping:
                if self._fallback is not None:
                    self._lanes.limits = self._limits(self._fallback)
                now = self._clock()
                taken = self._lanes.take(now)
                if taken.expired:
                    self._tell(self._expired, taken.expired)
                if taken.batch is not None:
                    self._meter.started(now)
                    self._running_tokens += taken.batch.tokens
                    return taken.batch
                self._work.wait()
            return None

    def _limits(self, fallback: Fallback) -> BatchLimits:
        return BatchLimits(fallback.budget) if fallback.away else self._gpu_limits

    def _batch_ended(self, batch: Batch, tokens_done: int) -> None:
        with self._work:
            self._running_tokens -= batch.tokens
            self._meter.finished(tokens_done, self._clock())
            self._lanes.tokens_per_s = self._meter.tokens_per_s
            if tokens_done:
                self._failures_in_a_row = 0

    def _batch_failed(self, batch: Batch, error: Exception) -> None:
        self._metrics.failed.inc()
        self._batch_ended(batch, 0)
        if len(batch.entries) > 1:
            with self._work:
                self._lanes.split(batch)
                self._work.notify()
            return
        self._tell(self._poisoned, batch, error)
        with self._work:
            self._failures_in_a_row += 1
            broken = self._failures_in_a_row == _BROKEN_AFTER
        if broken:
            self._tell(self._broken)

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed, so no caller is left to notify.
            _log.debug("loop closed before a batch ended")
