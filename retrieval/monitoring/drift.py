"""Whether what is asked, done and found has moved away from what a snapshot was built for.

A share of the searches goes into windows: the first of a snapshot are what later ones are compared
with, and its golden queries are. Of what was tried beside the current snapshot nothing is taken.
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
from nearline.snapshot import Store
from retrieval.monitoring import metrics
from retrieval.monitoring.divergence import (
    direction_distance,
    energy_distance,
    jensen_shannon,
    stability_index,
)
from retrieval.monitoring.samples import (
    ItemCounts,
    Reservoir,
    SearchObservation,
    scores_by_mode,
    stack_vectors,
)
from retrieval.protocols.shard import ShardQueries
from retrieval.rollout.collections import ServedCollections
from retrieval.router.events import InteractionsEvent, RequestEvent, SearchEvent
from retrieval.search import executor
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch, align_to_metric
from retrieval.search.request_context import RequestContext
from retrieval.snapshots.loaded import LoadedSnapshot

if TYPE_CHECKING:
    from retrieval.snapshots.golden_queries import GoldenQueries

BASELINE_SEARCHES = 1_000
# Vectors are large: of the first searches, every fourth is kept.
_VECTOR_OF = 4
_MOST_IN_WINDOW = 600
_LEAST_IN_WINDOW = 200
_WINDOWS_IN_A_ROW = 3
_GOLDEN = 64
_PATIENCE_S = 10.0
_LOOK_EVERY_S = 5.0
_log = logging.getLogger(__name__)

# Rows beside a snapshot and hidden of it; None: no live changes are followed.
LiveRows = Callable[[ServedCollection], tuple[int, int] | None]
# Told of the collection and of the drift that stayed above its limit; False: it is too early.
RequestRebuild = Callable[[str, str], Awaitable[bool]]


@dataclass(slots=True, eq=False)
class _MonitoredSnapshot:
    """A snapshot in force, and what was asked of it.

    counts: None: not made yet, or nothing was learned. golden: None: not read yet; False: there are
    none. above: By drift, windows in a row that were above the limit.
    """

    snapshot_id: str
    epoch: int
    began: float
    counts: ItemCounts | None = None
    first: list[SearchObservation] = field(default_factory=list)
    window: Reservoir = field(default_factory=lambda: Reservoir(_MOST_IN_WINDOW))
    golden: GoldenQueries | Literal[False] | None = None
    above: dict[str, int] = field(default_factory=dict)


class DriftMonitor:
    """Measures drift, window by window; an `Observe`. Belongs to the event loop.

    Args:
        store: Has the golden queries.
        collections: What is served.
        share: Of searches that are looked at, 0..1.
        window_s: Length of a window; it goes on while fewer than 200 searches are in it.
        live_rows: Tells how many rows live changes brought and hid.
        limit: Above which a rebuild is asked for, when three windows in a row were: of the
            stability index of scores, the energy distance of queries and the divergence of
            popularity, the first two against the first searches of the snapshot. 0: never.
        ask_rebuild: Asks for it.
        clock: Gives seconds that never go back.
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
        ask_rebuild: RequestRebuild | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._collections = collections
        self._share = share
        self._window_s = window_s
        self._live_rows = live_rows
        self._limit = limit
        self._ask_rebuild = ask_rebuild
        self._clock = clock
        self._watched: dict[str, _MonitoredSnapshot] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to measure; on a running loop."""
        if self._share:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops; a window that is not full says nothing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def observe(self, happening: RequestEvent) -> None:
        """Takes a search into the sample, or counts interactions; never raises."""
        if isinstance(happening, InteractionsEvent):
            held = self._collections.holdings.current(happening.collection)
            if self._share and held is not None:
                watched = self._of(held.value)
                if watched is not None and watched.counts is not None:
                    watched.counts.add(happening.interactions)
            return
        if not isinstance(happening, SearchEvent) or random.random() >= self._share:
            return
        served, arm, _, options, asked, hits, _ = happening
        if asked is None or arm is c.Arm.CANARY:
            return
        watched = self._of(served)
        if watched is None:
            return
        vectors, first = asked.queries.vectors, len(watched.first)
        wanted = len(vectors) == 1 and (first >= BASELINE_SEARCHES or first % _VECTOR_OF == 0)
        one = SearchObservation(
            asked.mode,
            hits[0].score if hits and options.filter is None else None,
            vectors[0] if wanted else None,
        )
        if first < BASELINE_SEARCHES:
            watched.first.append(one)
            watched.began = self._clock()
        else:
            watched.window.offer(one)

    async def look(self) -> None:
        """Ends the windows whose time is up, and says what is in them."""
        now = self._clock()
        for held in self._collections.holdings.in_force:
            served = held.value
            watched = self._of(served)
            if watched is None:
                continue
            if watched.counts is None and served.learned is not None:
                watched.counts = await asyncio.to_thread(ItemCounts, served.learned)
            if watched.window.offered < _LEAST_IN_WINDOW:
                continue
            if now - watched.began < self._window_s:
                continue
            window, watched.window = watched.window.kept, Reservoir(_MOST_IN_WINDOW)
            watched.began = now
            if watched.golden is None:
                read = await asyncio.to_thread(self._read_golden, served)
                watched.golden = read or False
            drifts = await asyncio.to_thread(_queries_and_scores, served.name, watched, window)
            _tell_rows(served, self._live_rows(served))
            if watched.golden:
                await _tell_golden(held, watched.golden)
            popularity = _popularity(served.name, watched.counts)
            if popularity is not None:
                drifts = {**drifts, "popularity": popularity}
            await self._judge(served.name, watched, drifts)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._window_s))
            try:
                await self.look()
            except Exception:
                # Whatever it was, requests are answered all the same.
                _log.exception("drift not measured")

    def _of(self, served: ServedCollection) -> _MonitoredSnapshot | None:
        """Returns what is known of a snapshot; None: a newer one is in force."""
        watched = self._watched.get(served.name)
        if watched is not None and watched.snapshot_id == served.snapshot_id:
            return watched
        if watched is not None and served.epoch < watched.epoch:
            return None
        watched = _MonitoredSnapshot(served.snapshot_id, served.epoch, self._clock())
        self._watched[served.name] = watched
        return watched

    def _read_golden(self, served: ServedCollection) -> GoldenQueries | None:
        # A router without shards of its own runs where Arrow is not installed.
        try:
            from retrieval.snapshots.golden_queries import GoldenQueries

            folder = self._store.snapshot_folder(served.name, served.snapshot_id)
            manifest = self._store.manifest(served.name, served.snapshot_id)
            return GoldenQueries.of(folder, manifest)
        except (ImportError, NearlineError) as error:
            _log.info(
                "golden queries cannot be compared with",
                extra={"collection": served.name, "reason": str(error)},
            )
            return None

    async def _judge(
        self, name: str, watched: _MonitoredSnapshot, drifts: Mapping[str, float]
    ) -> None:
        if not self._limit or self._ask_rebuild is None:
            return
        for drift, value in drifts.items():
            above = watched.above.get(drift, 0) + 1 if value > self._limit else 0
            watched.above[drift] = above
            if above < _WINDOWS_IN_A_ROW:
                continue
            watched.above[drift] = 0
            reason = f"drift of {drift}: {value:.3f} is above {self._limit:g}"
            try:
                asked = await self._ask_rebuild(name, reason)
            except NearlineError as error:
                _log.warning(
                    "a rebuild could not be asked for",
                    extra={"collection": name, "reason": error.message},
                )
                continue
            if asked:
                metrics.rebuilds_asked.labels(name, drift).inc()


def _queries_and_scores(
    name: str, watched: _MonitoredSnapshot, window: Sequence[SearchObservation]
) -> Mapping[str, float]:
    """Returns how far a window is from its baselines; gives what limits apply to."""
    vectors, scores = stack_vectors(window), scores_by_mode(window)
    baselines = {"first": (stack_vectors(watched.first), scores_by_mode(watched.first))}
    golden = watched.golden
    if golden:
        best = [each[0] for each in golden.scores if each]
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
        # Of fewer in either the index says more of chance.
        indices = [
            stability_index(scores_before[mode], found)
            for mode, found in scores.items()
            if min(len(found), len(scores_before.get(mode, ()))) >= _LEAST_IN_WINDOW // 2
        ]
        if indices:
            metrics.score_drift.labels(name, baseline).set(max(indices))
            if baseline == "first":
                drifts["score"] = max(indices)
    return drifts


def _popularity(name: str, counts: ItemCounts | None) -> float | None:
    compared = None if counts is None else counts.compared()
    if compared is None or not np.sum(compared[0]) or not np.sum(compared[1]):
        return None
    value = jensen_shannon(*compared)
    metrics.popularity_drift.labels(name).set(value)
    return value


def _tell_rows(served: ServedCollection, rows: tuple[int, int] | None) -> None:
    if rows is not None and served.chunks:
        metrics.item_drift.labels(served.name).set(sum(rows) / served.chunks)


async def _tell_golden(held: LoadedSnapshot[ServedCollection], golden: GoldenQueries) -> None:
    """Tells how much better or worse what is best for golden queries has become."""
    vectors, before = golden.vectors[:_GOLDEN], golden.scores[:_GOLDEN]
    inquiry = RequestContext(asyncio.get_running_loop().time() + _PATIENCE_S)
    options = c.SearchOptions(k=1, level=c.HitLevel.CHUNK)
    with held as served:
        asked = QueryBatch(
            c.SearchMode.DENSE, range(len(vectors)), ShardQueries(align_to_metric(served, vectors))
        )
        try:
            found = await executor.search(served, asked, options, inquiry)
        except NearlineError:
            return  # It is asked again with the next window.
    if inquiry.failures:
        return
    shifts = [
        hits[0].score - scores[0]
        for hits, scores in zip(found.lists, before, strict=True)
        if hits and scores
    ]
    if shifts:
        metrics.golden_shift.labels(served.name).set(float(np.mean(shifts)))
