"""Recall monitor: reruns a sample of live searches exactly and measures recall@10.

Reruns happen alongside requests. Sampled searches with equal options are collected into a batch,
since many searches at once cost little more than a few. Batches run one after another, each
followed by a pause that keeps the monitor below a tenth of one core. Searches that cannot be
compared are counted and skipped. The monitor never delays a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nearline import contract as c
from nearline.errors import NearlineError, SnapshotGone, Unsupported
from retrieval.monitoring import metrics
from retrieval.monitoring.exact_rerun import RECALL_K, RerunRequest, rerun_exactly
from retrieval.monitoring.filter_shape import filter_shape
from retrieval.monitoring.recall_metrics import RecallResult, compute_recall
from retrieval.rollout.collections import ServedCollections
from retrieval.router.events import RequestEvent, SearchEvent
from retrieval.search.collection import ServedCollection

_MAX_K = 100
_MAX_PENDING = 512
# Searches in a batch: as many as finish in _BATCH_S, which are few for large snapshots.
_MAX_BATCH = 64
_FIRST_BATCH = 4
_BATCH_S = 0.5
_MAX_SHAPES = 32
# A batch of 16 searches over 50,000 x 384 numbers costs 12 ms of a core, a batch of 64 36 ms.
_GATHER_S = 3.0
# Share of one core; each batch is followed by a pause of _REST times its cost.
_BUSY_RATIO = 0.1
_REST = 1 / _BUSY_RATIO - 1
# Throughput of a core; measured: 2.5e10 with 16 queries at once, 3.4e10 with 64, and 6e9 with one
# query at a time.
_NUMBERS_PER_S = 1e10
_SEARCH_S = 5e-4
_RECENT_SEARCHES = 500
_FORGET_ARM_S = 300.0
_log = logging.getLogger(__name__)

# Returns the share of searches to sample, 0..1, for a snapshot that answers as an arm.
SampleShare = Callable[[ServedCollection, c.Arm | None], float]
OnRecall = Callable[[str, c.Arm | None, float], None]


class _BatchKey(NamedTuple):
    """Properties that searches must share to be rerun in one batch."""

    collection: str
    snapshot_id: str
    arm: c.Arm | None
    options: c.SearchOptions


@dataclass(slots=True, eq=False)
class _PendingBatch:
    """Searches to rerun together. ready: Clock time from which they run, however few they are."""

    ready: float
    sampled: list[RerunRequest] = field(default_factory=list)


class _RecentRecall(NamedTuple):
    """Recall of the last searches of a snapshot, and the time of the newest one."""

    snapshot_id: str
    recalls: deque[float]
    time: float


def core_seconds(spent_s: float, searches: int, numbers: int) -> float:
    """Returns the seconds of a core that a batch of searches cost.

    On a busy machine a batch takes up to ten times its CPU time; then the estimated CPU time of its
    arithmetic is returned.

    Args:
        spent_s: Elapsed seconds.
        searches: Number of compared searches.
        numbers: Total numbers in the vectors that each search was compared with.
    """
    if not searches:
        return spent_s
    return min(spent_s, searches * (_SEARCH_S + numbers / _NUMBERS_PER_S))


class RecallMonitor:
    """Measures recall@10 on a sample of live searches; observes request events.

    The sample contains searches of an approximate vector index: dense searches, and the dense leg
    of hybrid searches with its original width. Exact searches, cached answers and snapshots whose
    index compares every vector are excluded. Belongs to the event loop.

    Args:
        collections: Served collections; a snapshot stays loaded while it is searched.
        shares: Returns the share of searches to sample.
        on_recall: Called for every compared search with collection, arm and recall, 0..1.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        collections: ServedCollections,
        shares: SampleShare,
        on_recall: OnRecall = lambda collection, arm, value: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collections = collections
        self._shares = shares
        self._on_recall = on_recall
        self._clock = clock
        self._pending: dict[_BatchKey, _PendingBatch] = {}
        self._count = 0
        self._has_pending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # By collection and arm.
        self._recent: dict[tuple[str, c.Arm | None], _RecentRecall] = {}
        self._shapes: set[str] = set()
        self._batch_size = _FIRST_BATCH
        self._numbers = 0
        # Snapshots without exact search.
        self._inexact_snapshots: set[str] = set()

    def start(self) -> None:
        """Starts measuring; requires a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops measuring and drops pending searches."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def observe(self, event: RequestEvent) -> None:
        """Samples a search; never raises."""
        if not isinstance(event, SearchEvent):
            return
        served, arm, _, options, query_batch, hits, mark, *_ = event
        share = self._shares(served, arm)
        if not share or random.random() >= share or query_batch is None or options.exact:
            return
        vectors = query_batch.queries.vectors
        if (
            len(vectors) != 1
            or not served.approximate
            or served.snapshot_id in self._inexact_snapshots
        ):
            return
        if self._count >= _MAX_PENDING:
            metrics.recall_skipped.labels(served.name, "full").inc()
            return
        k = options.k
        if query_batch.mode is c.SearchMode.HYBRID:
            k = max(k, served.fusion.candidates)
        rerun_options = c.SearchOptions(
            # Use the original k, because k affects the width of a graph search.
            k=min(max(k, RECALL_K), _MAX_K),
            level=options.level,
            ef_search=options.ef_search,
            nprobe=options.nprobe,
            filter=options.filter,
        )
        key = _BatchKey(served.name, served.snapshot_id, arm, rerun_options)
        batch = self._pending.get(key)
        if batch is None:
            batch = self._pending[key] = _PendingBatch(self._clock() + _GATHER_S)
        batch.sampled.append(
            RerunRequest(
                vectors,
                query_batch.excluded.get(0, frozenset()),
                hits[:RECALL_K] if _are_index_hits(event) else None,
                mark,
            )
        )
        self._count += 1
        self._has_pending.set()

    async def check_batch(self) -> int:
        """Reruns one batch, the one that has waited longest.

        Returns: Number of compared searches.
        """
        if not self._pending:
            return 0
        key = min(self._pending, key=lambda one: self._pending[one].ready)
        batch = self._pending.pop(key)
        searches, left = batch.sampled[: self._batch_size], batch.sampled[self._batch_size :]
        if left:
            # The rest goes behind other batches, so that frequent options do not starve rare ones.
            self._pending[key] = _PendingBatch(max(self._clock(), batch.ready), left)
        self._count -= len(searches)
        if not self._pending:
            self._has_pending.clear()
        try:
            return await self._compare(key, searches)
        except Unsupported as error:
            self._inexact_snapshots.add(key.snapshot_id)
            self._skip(key, "unsupported", len(searches), error.message)
        except SnapshotGone:
            self._skip(key, "gone", len(searches))
        except NearlineError as error:
            self._skip(key, "failed", len(searches), error.message)
        return 0

    async def _run(self) -> None:
        while True:
            await self._has_pending.wait()
            soonest = min(one.ready for one in self._pending.values())
            if (gathers_s := soonest - self._clock()) > 0:
                await asyncio.sleep(gathers_s)
            start, compared = time.perf_counter(), 0
            try:
                compared = await self.check_batch()
            except Exception:
                # Monitoring must not affect requests.
                _log.exception("recall not measured")
            spent_s = time.perf_counter() - start
            fit = int(self._batch_size * _BATCH_S / max(spent_s, 1e-6))
            self._batch_size = min(max(1, fit), _MAX_BATCH)
            await asyncio.sleep(_REST * core_seconds(spent_s, compared, self._numbers))

    async def _compare(self, key: _BatchKey, searches: Sequence[RerunRequest]) -> int:
        held = self._collections.loaded.get(key.collection, key.snapshot_id)
        if held is None:
            self._skip(key, "gone", len(searches))
            return 0
        with held as served:
            result = await rerun_exactly(served, searches, key.options)
            self._numbers = served.chunks * served.dim
        for reason, count in result.left_out.items():
            self._skip(key, reason, count)
        chunks = key.options.level is c.HitLevel.CHUNK
        for best, near in result.pairs:
            if best:
                self._export_recall(
                    key, compute_recall(best[:RECALL_K], near[:RECALL_K], chunks=chunks)
                )
        return len(result.pairs)

    def _export_recall(self, key: _BatchKey, compared: RecallResult) -> None:
        name, arm = key.collection, "" if key.arm is None else key.arm.value
        shape = filter_shape(key.options.filter)
        if shape not in self._shapes and len(self._shapes) >= _MAX_SHAPES:
            shape = "other"
        self._shapes.add(shape)
        metrics.online_recall.labels(name, arm, shape).observe(compared.recall)
        for shard, recall in compared.by_shard.items():
            metrics.shard_recall.labels(name, arm, str(shard)).observe(recall)
        recent = self._recent.get((name, key.arm))
        same = recent is not None and recent.snapshot_id == key.snapshot_id
        last = recent.recalls if recent is not None and same else deque(maxlen=_RECENT_SEARCHES)
        last.append(compared.recall)
        self._recent[name, key.arm] = _RecentRecall(key.snapshot_id, last, self._clock())
        metrics.online_recall_mean.labels(name, arm).set(sum(last) / len(last))
        self._forget_arms(name)
        self._on_recall(name, key.arm, compared.recall)

    def _forget_arms(self, name: str) -> None:
        """Removes the mean of arms without recent searches, after a trial has started or ended."""
        gone = self._clock() - _FORGET_ARM_S
        for key in [one for one, recent in self._recent.items() if recent.time < gone]:
            if key[0] == name:
                del self._recent[key]
                metrics.online_recall_mean.remove(name, "" if key[1] is None else key[1].value)

    def _skip(self, key: _BatchKey, reason: str, count: int, why: str = "") -> None:
        metrics.recall_skipped.labels(key.collection, reason).inc(count)
        if why:
            _log.warning(
                "recall not measured",
                extra={
                    "collection": key.collection,
                    "snapshot_id": key.snapshot_id,
                    "reason": why,
                },
            )


def _are_index_hits(event: SearchEvent) -> bool:
    """Returns whether the first hits of an answer are the best hits of the index."""
    options = event.options
    plain = options.min_score is None and options.grouping is None and not options.diversity
    plain = plain and not options.boosts and not event.personal
    dense = event.batch is not None and event.batch.mode is c.SearchMode.DENSE
    return dense and options.k >= RECALL_K and plain
