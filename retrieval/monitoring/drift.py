"""Drift monitor: compares queries, scores, items and popularity with those of the build.

A sample of the searches is collected in windows. Later windows are compared with the first searches
of a snapshot and with its golden queries. Searches answered by a canary are not sampled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from nearline import contract as c
from nearline.errors import NearlineError
from nearline.store.snapshot import Store
from retrieval.behaviour import generator_names
from retrieval.behaviour.model import BehaviourModel
from retrieval.monitoring import metrics
from retrieval.monitoring.divergence import (
    direction_distance,
    energy_distance,
    jensen_shannon,
    stability_index,
)
from retrieval.monitoring.samples import (
    MAX_ITEMS,
    ItemCounts,
    Reservoir,
    SearchObservation,
    scores_by_mode,
    stack_vectors,
)
from retrieval.protocols.candidates import NO_EVENTS, CandidatesRequest
from retrieval.protocols.shard import ShardQueries
from retrieval.rollout.collections import ServedCollections
from retrieval.router.events import InteractionsEvent, RequestEvent, SearchEvent
from retrieval.search import executor
from retrieval.search.candidates import find_candidates
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch, align_to_metric
from retrieval.search.request_context import RequestContext
from retrieval.snapshots.loaded_snapshots import LoadedSnapshot

if TYPE_CHECKING:
    from retrieval.snapshots.golden_queries import GoldenQueries

BASELINE_SEARCHES = 1_000
# Vectors are large, so every fourth one of the first searches is kept.
_VECTOR_EVERY = 4
_MAX_WINDOW = 600
_MIN_WINDOW = 200
_WINDOWS_ABOVE_LIMIT = 3
_MAX_GOLDEN = 64
_GOLDEN_TIMEOUT_S = 10.0
_CHECK_INTERVAL_S = 5.0
_log = logging.getLogger(__name__)

# Returns the rows that live changes added and hid; None without live changes.
LiveRows = Callable[[ServedCollection], tuple[int, int] | None]
# Requests a rebuild of a collection for a reason; returns False if it is too early for a further
# request.
RequestRebuild = Callable[[str, str], Awaitable[bool]]


@dataclass(slots=True, eq=False)
class _MonitoredSnapshot:
    """A current snapshot and its observations.

    began: Clock time at which the window began.
    counts: Item popularity; None before the first window, or without a behaviour model.
    golden: Golden queries; None before they are read, False if there are none.
    above: Number of consecutive windows above the limit, by kind of drift.
    """

    snapshot_id: str
    epoch: int
    began: float
    counts: ItemCounts | None = None
    first: list[SearchObservation] = field(default_factory=list)
    window: Reservoir = field(default_factory=lambda: Reservoir(_MAX_WINDOW))
    golden: GoldenQueries | Literal[False] | None = None
    above: dict[str, int] = field(default_factory=dict)


class DriftMonitor:
    """Measures drift in windows; an observer of request events. Belongs to the event loop.

    Args:
        store: Store with the golden queries.
        collections: Served collections.
        share: Share of searches to sample, 0..1.
        window_s: Length of a window in seconds; a window stays open until it holds 200 searches.
        live_rows: Returns the rows that live changes added and hid.
        limit: Drift that triggers a rebuild if three consecutive windows exceed it; 0 disables
            rebuilds. It applies to the stability index of scores and the energy distance of
            queries, both against the first searches of the snapshot, and to the divergence of
            popularity.
        request_rebuild: Requests a rebuild. Optional; None disables rebuilds.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        collections: ServedCollections,
        share: float,
        *,
        window_s: float = 600.0,
        live_rows: LiveRows = lambda served: None,
        limit: float = 0.0,
        request_rebuild: RequestRebuild | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._collections = collections
        self._share = share
        self._window_s = window_s
        self._live_rows = live_rows
        self._limit = limit
        self._request_rebuild = request_rebuild
        self._clock = clock
        self._monitored: dict[str, _MonitoredSnapshot] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts measuring; requires a running event loop."""
        if self._share:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops measuring and discards open windows."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def observe(self, event: RequestEvent) -> None:
        """Samples a search or counts interactions; never raises."""
        if isinstance(event, InteractionsEvent):
            held = self._collections.loaded.current(event.collection)
            if self._share and held is not None:
                monitored = self._snapshot_state(held.value)
                if monitored is not None and monitored.counts is not None:
                    monitored.counts.add(event.interactions)
            return
        if not isinstance(event, SearchEvent) or random.random() >= self._share:
            return
        served, arm, _, options, batch, hits, *_ = event
        if batch is None or arm is c.Arm.CANARY:
            return
        monitored = self._snapshot_state(served)
        if monitored is None:
            return
        vectors, first = batch.queries.vectors, len(monitored.first)
        wanted = len(vectors) == 1 and (first >= BASELINE_SEARCHES or first % _VECTOR_EVERY == 0)
        one = SearchObservation(
            batch.mode,
            hits[0].score if hits and options.filter is None and not options.boosts else None,
            vectors[0] if wanted else None,
        )
        if first < BASELINE_SEARCHES:
            monitored.first.append(one)
            monitored.began = self._clock()
        else:
            monitored.window.offer(one)

    async def close_windows(self) -> None:
        """Closes windows whose time is over, and exports their drift."""
        now = self._clock()
        for held in self._collections.loaded.in_force:
            served = held.value
            monitored = self._snapshot_state(served)
            if monitored is None:
                continue
            if monitored.counts is None and served.learned is not None:
                monitored.counts = await _read_counts(served, served.learned)
            if monitored.window.offered < _MIN_WINDOW:
                continue
            if now - monitored.began < self._window_s:
                continue
            window, monitored.window = monitored.window.kept, Reservoir(_MAX_WINDOW)
            monitored.began = now
            if monitored.golden is None:
                read = await asyncio.to_thread(self._read_golden, served)
                monitored.golden = read or False
            drifts = await asyncio.to_thread(_query_and_score_drift, served.name, monitored, window)
            _export_item_drift(served, self._live_rows(served))
            if monitored.golden:
                await _export_golden_shift(held, monitored.golden)
            popularity = _popularity_drift(served.name, monitored.counts)
            if popularity is not None:
                drifts = {**drifts, "popularity": popularity}
            await self._check_limits(served.name, monitored, drifts)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(min(_CHECK_INTERVAL_S, self._window_s))
            try:
                await self.close_windows()
            except Exception:
                # Monitoring must not affect requests.
                _log.exception("drift not measured")

    def _snapshot_state(self, served: ServedCollection) -> _MonitoredSnapshot | None:
        """Returns the state of a snapshot; None if a newer one is current."""
        monitored = self._monitored.get(served.name)
        if monitored is not None and monitored.snapshot_id == served.snapshot_id:
            return monitored
        if monitored is not None and served.epoch < monitored.epoch:
            return None
        monitored = _MonitoredSnapshot(served.snapshot_id, served.epoch, self._clock())
        self._monitored[served.name] = monitored
        return monitored

    def _read_golden(self, served: ServedCollection) -> GoldenQueries | None:
        # A router without local shards runs without Arrow.
        try:
            from retrieval.snapshots.golden_queries import GoldenQueries

            folder = self._store.snapshot_folder(served.name, served.snapshot_id)
            manifest = self._store.manifest(served.name, served.snapshot_id)
            return GoldenQueries.read(folder, manifest)
        except (ImportError, NearlineError) as error:
            _log.info(
                "golden queries cannot be read",
                extra={"collection": served.name, "reason": str(error)},
            )
            return None

    async def _check_limits(
        self, name: str, monitored: _MonitoredSnapshot, drifts: Mapping[str, float]
    ) -> None:
        if not self._limit or self._request_rebuild is None:
            return
        for drift, value in drifts.items():
            above = monitored.above.get(drift, 0) + 1 if value > self._limit else 0
            monitored.above[drift] = above
            if above < _WINDOWS_ABOVE_LIMIT:
                continue
            monitored.above[drift] = 0
            reason = f"drift of {drift}: {value:.3f} is above {self._limit:g}"
            try:
                requested = await self._request_rebuild(name, reason)
            except NearlineError as error:
                _log.warning(
                    "a rebuild could not be requested",
                    extra={"collection": name, "reason": error.message},
                )
                continue
            if requested:
                metrics.rebuilds_asked.labels(name, drift).inc()


def _query_and_score_drift(
    name: str, monitored: _MonitoredSnapshot, window: Sequence[SearchObservation]
) -> Mapping[str, float]:
    """Exports the drift of a window from its baselines; returns the values that limits apply to."""
    vectors, scores = stack_vectors(window), scores_by_mode(window)
    baselines = {"first": (stack_vectors(monitored.first), scores_by_mode(monitored.first))}
    golden = monitored.golden
    if golden:
        best = [scores[0] for scores in golden.scores if scores]
        baselines["golden"] = golden.vectors, {c.SearchMode.DENSE: best}
    drifts: dict[str, float] = {}
    for baseline, (vectors_before, scores_before) in baselines.items():
        if min(len(vectors), len(vectors_before)) >= 2:
            direction = direction_distance(vectors_before, vectors)
            energy = energy_distance(vectors_before, vectors)
            metrics.query_drift.labels(name, baseline, "direction").set(direction)
            metrics.query_drift.labels(name, baseline, "energy").set(energy)
            if baseline == "first":
                drifts["query"] = energy
        # With fewer scores on either side, the index mostly reflects chance.
        indices = [
            stability_index(scores_before[mode], found)
            for mode, found in scores.items()
            if min(len(found), len(scores_before.get(mode, ()))) >= _MIN_WINDOW // 2
        ]
        if indices:
            metrics.score_drift.labels(name, baseline).set(max(indices))
            if baseline == "first":
                drifts["score"] = max(indices)
    return drifts


async def _read_counts(served: ServedCollection, model: BehaviourModel) -> ItemCounts | None:
    """Reads the most popular items; returns None while a shard does not answer."""
    request = CandidatesRequest([generator_names.COUNTS], NO_EVENTS, MAX_ITEMS)
    context = RequestContext()
    try:
        found = await find_candidates(served, request, context)
    except NearlineError:
        return None
    if context.failures:
        return None
    numbers, counts = found.scored[0].positive().ranked()
    return ItemCounts(found.ids_of(numbers), counts, found.total_count, model.kind_weights)


def _popularity_drift(name: str, counts: ItemCounts | None) -> float | None:
    compared = None if counts is None else counts.popularity()
    if compared is None or not np.sum(compared[0]) or not np.sum(compared[1]):
        return None
    value = jensen_shannon(*compared)
    metrics.popularity_drift.labels(name).set(value)
    return value


def _export_item_drift(served: ServedCollection, rows: tuple[int, int] | None) -> None:
    if rows is not None and served.chunks:
        metrics.item_drift.labels(served.name).set(sum(rows) / served.chunks)


async def _export_golden_shift(
    held: LoadedSnapshot[ServedCollection], golden: GoldenQueries
) -> None:
    """Exports the mean change of the best scores of golden queries."""
    vectors, before = golden.vectors[:_MAX_GOLDEN], golden.scores[:_MAX_GOLDEN]
    context = RequestContext(asyncio.get_running_loop().time() + _GOLDEN_TIMEOUT_S)
    options = c.SearchOptions(k=1, level=c.HitLevel.CHUNK)
    with held as served:
        batch = QueryBatch(
            c.SearchMode.DENSE, range(len(vectors)), ShardQueries(align_to_metric(served, vectors))
        )
        try:
            found = await executor.search(served, batch, options, context)
        except NearlineError:
            return  # The next window searches again.
    if context.failures:
        return
    shifts = [
        hits[0].score - scores[0]
        for hits, scores in zip(found.lists, before, strict=True)
        if hits and scores
    ]
    if shifts:
        metrics.golden_shift.labels(served.name).set(float(np.mean(shifts)))
