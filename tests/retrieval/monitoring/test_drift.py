"""Drift in windows of searches and interactions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import NotReady
from nearline.filters import Equals
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.monitoring import drift
from retrieval.monitoring.divergence import stability_index
from retrieval.monitoring.drift import BASELINE_SEARCHES, DriftMonitor
from retrieval.monitoring.samples import ItemCounts, Reservoir, SearchObservation
from retrieval.protocols.candidates import NO_CANDIDATES, ShardCandidates
from retrieval.protocols.scored_rows import NO_ROWS
from retrieval.protocols.shard import ShardQueries
from retrieval.router.events import InteractionsEvent, SearchEvent
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch
from retrieval.snapshots.golden_queries import GoldenQueries
from tests.retrieval.fakes import FailingShard
from tests.retrieval.monitoring.monitored_collection import metric, served_collections
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.small_snapshots import documents_of, write_snapshot

DIM = 8


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _search(
    served: ServedCollection,
    vector: NDArray[np.float32],
    score: float,
    options: c.SearchOptions = c.SearchOptions(),  # noqa: B008  frozen
    arm: c.Arm | None = None,
) -> SearchEvent:
    asked = QueryBatch(c.SearchMode.DENSE, [0], ShardQueries(vector[None]))
    hits = [c.Hit(id="d1", score=score)]
    return SearchEvent(served, arm, c.Query(vector=vector), options, asked, hits, b"")


def _offer(
    monitor: DriftMonitor,
    served: ServedCollection,
    vectors: NDArray[np.float32],
    scores: Sequence[float],
) -> None:
    for vector, score in zip(vectors, scores, strict=True):
        monitor.observe(_search(served, vector, score))


def _write(tmp_path: Path, rng: np.random.Generator, name: str, *, golden: bool = False) -> None:
    vectors = rng.normal(size=(300, DIM)).astype(np.float32)
    queries = rng.normal(size=(200, DIM)).astype(np.float32) if golden else None
    write_snapshot(tmp_path, documents_of(vectors), collection=name, golden=queries)


async def test_a_window_is_compared_with_first_searches_and_golden_queries(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    _write(tmp_path, rng, "moving", golden=True)
    clock = Clock()
    async with served_collections(tmp_path) as collections:
        monitor = DriftMonitor(Store(tmp_path), collections, 1.0, window_s=60, clock=clock)
        (served,) = collections.in_force
        first = rng.uniform(0, 1, BASELINE_SEARCHES).tolist()
        queries = rng.normal(size=(BASELINE_SEARCHES, DIM)).astype(np.float32)
        _offer(monitor, served, queries, first)
        now = rng.uniform(0.5, 1.5, 300).tolist()
        _offer(monitor, served, queries[:300] + 3, now)
        await monitor.close_windows()
        labels = {"collection": "moving", "baseline": "first"}
        assert metric("nearline_retrieval_score_drift", **labels) == 0, "its time is not up"
        clock.now = 60
        await monitor.close_windows()
        psi = metric("nearline_retrieval_score_drift", **labels)
        assert psi == pytest.approx(stability_index(first, now))
        drift = "nearline_retrieval_query_drift"
        for baseline in ("first", "golden"):
            both = {"collection": "moving", "baseline": baseline}
            assert metric(drift, measure="energy", **both) > 0.3
            assert metric(drift, measure="direction", **both) > 0.3
        assert metric("nearline_retrieval_score_drift", collection="moving", baseline="golden") > 0
        # A flat index finds what was found when it was built.
        shift = metric("nearline_retrieval_golden_score_shift", collection="moving")
        assert shift == pytest.approx(0, abs=1e-5)
        # The next window is like the first searches again.
        clock.now = 61
        _offer(monitor, served, queries[:500], rng.uniform(0, 1, 500).tolist())
        clock.now = 121
        await monitor.close_windows()
        assert metric("nearline_retrieval_score_drift", **labels) < 0.1
        assert metric(drift, measure="energy", **labels) < 0.02


async def test_the_shift_of_golden_queries_is_exported(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, rng, "shifted", golden=True)
    clock = Clock()
    best = GoldenQueries.read

    def better(folder: Path, manifest: snapshot_pb2.Manifest) -> GoldenQueries | None:
        golden = best(folder, manifest)
        assert golden is not None
        return golden._replace(scores=[[one - 0.5 for one in row] for row in golden.scores])

    monkeypatch.setattr(GoldenQueries, "read", better)
    async with served_collections(tmp_path) as collections:
        monitor = DriftMonitor(Store(tmp_path), collections, 1.0, window_s=60, clock=clock)
        (served,) = collections.in_force
        vectors = rng.normal(size=(BASELINE_SEARCHES, DIM)).astype(np.float32)
        _offer(monitor, served, vectors, [0.5] * BASELINE_SEARCHES)
        _offer(monitor, served, vectors[:300], [0.5] * 300)
        clock.now = 60
        await monitor.close_windows()
    shift = metric("nearline_retrieval_golden_score_shift", collection="shifted")
    assert shift == pytest.approx(0.5, abs=1e-5)


async def test_a_window_stays_open_until_it_has_enough_searches(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    _write(tmp_path, rng, "quiet")
    clock = Clock()
    async with served_collections(tmp_path) as collections:
        monitor = DriftMonitor(Store(tmp_path), collections, 1.0, window_s=60, clock=clock)
        (served,) = collections.in_force
        vectors = rng.normal(size=(BASELINE_SEARCHES, DIM)).astype(np.float32)
        _offer(monitor, served, vectors, [0.5] * BASELINE_SEARCHES)
        _offer(monitor, served, vectors[:199], [0.9] * 199)
        clock.now = 1e6
        await monitor.close_windows()
        labels = {"collection": "quiet", "baseline": "first"}
        assert metric("nearline_retrieval_score_drift", **labels) == 0
        _offer(monitor, served, vectors[:1], [0.9])
        await monitor.close_windows()
        assert metric("nearline_retrieval_score_drift", **labels) > 1


async def test_neither_a_canary_nor_the_scores_of_a_filter_count(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    _write(tmp_path, rng, "apart")
    clock = Clock()
    async with served_collections(tmp_path) as collections:
        monitor = DriftMonitor(Store(tmp_path), collections, 1.0, window_s=60, clock=clock)
        (served,) = collections.in_force
        vectors = rng.normal(size=(BASELINE_SEARCHES, DIM)).astype(np.float32)
        _offer(monitor, served, vectors, [0.5] * BASELINE_SEARCHES)
        filtered = c.SearchOptions(filter=Equals("kind", "class"))
        for vector in vectors[:300]:
            monitor.observe(_search(served, vector, 0.9, arm=c.Arm.CANARY))
            monitor.observe(_search(served, vector, 0.9, filtered))
            monitor.observe(_search(served, vector, 0.9)._replace(batch=None))
        _offer(monitor, served, vectors[:300], [0.5] * 300)
        clock.now = 60
        await monitor.close_windows()
        psi = metric("nearline_retrieval_score_drift", collection="apart", baseline="first")
        assert 0 < psi < 0.02


async def test_three_windows_above_the_limit_request_a_rebuild(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    _write(tmp_path, rng, "rebuilt")
    clock = Clock()
    asked: list[tuple[str, str]] = []
    away = True

    async def ask(collection: str, reason: str) -> bool:
        if away:
            raise NotReady("redis is away; start it")
        asked.append((collection, reason))
        return True

    async with served_collections(tmp_path) as collections:
        monitor = DriftMonitor(
            Store(tmp_path),
            collections,
            1.0,
            window_s=60,
            limit=0.25,
            request_rebuild=ask,
            clock=clock,
        )
        (served,) = collections.in_force
        vectors = rng.normal(size=(BASELINE_SEARCHES, DIM)).astype(np.float32)
        same = rng.uniform(0, 1, BASELINE_SEARCHES).tolist()
        _offer(monitor, served, vectors, same)
        # Two that drifted, one that did not, three that did while Redis was away, and three more.
        for number, drifted in enumerate([1, 1, 0, 1, 1, 1, 1, 1, 1]):
            away = number < 6
            scores = [one + 2 * drifted for one in same[:300]]
            _offer(monitor, served, vectors[:300], scores)
            clock.now += 60
            await monitor.close_windows()
    assert [name for name, _ in asked] == ["rebuilt"]
    assert asked[0][1].startswith("drift of score: ") and asked[0][1].endswith(" is above 0.25")
    name = "nearline_retrieval_drift_rebuilds_total"
    assert metric(name, collection="rebuilt", drift="score") == 1


async def test_a_new_snapshot_starts_over_and_ignores_events_of_the_old_one(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    _write(tmp_path, rng, "flipped")
    clock = Clock()
    vectors = rng.normal(size=(BASELINE_SEARCHES, DIM)).astype(np.float32)
    async with served_collections(tmp_path) as collections:
        monitor = DriftMonitor(Store(tmp_path), collections, 1.0, window_s=60, clock=clock)
        (old,) = collections.in_force
        _offer(monitor, old, vectors, [0.5] * BASELINE_SEARCHES)
        _write(tmp_path, rng, "flipped")
        async with served_collections(tmp_path) as others:
            (new,) = others.in_force
            collections.serve(new)
            _offer(monitor, new, vectors, [0.9] * BASELINE_SEARCHES)
            _offer(monitor, old, vectors, [0.1] * BASELINE_SEARCHES)
            _offer(monitor, new, vectors[:300], [0.9] * 300)
            clock.now = 60
            await monitor.close_windows()
    psi = metric("nearline_retrieval_score_drift", collection="flipped", baseline="first")
    assert 0 < psi < 0.02


async def test_popularity_and_live_rows_are_exported_with_a_window(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    _write(tmp_path, rng, "liked")
    clock = Clock()
    async with served_collections(tmp_path) as collections:
        (held,) = collections.loaded.all
        served = held.value
        # Nobody had c.
        served.learned = model = learned(["a", "b", "c"], {}, {"a": 1.0, "b": 3.0})
        served.local_behaviour = model.local
        monitor = DriftMonitor(
            Store(tmp_path),
            collections,
            1.0,
            window_s=60,
            clock=clock,
            live_rows=lambda served: (20, 10),
        )
        await monitor.close_windows()
        vectors = rng.normal(size=(BASELINE_SEARCHES, DIM)).astype(np.float32)
        _offer(monitor, served, vectors, [0.5] * BASELINE_SEARCHES)
        _offer(monitor, served, vectors[:300], [0.5] * 300)
        for item, kind in (("a", "purchase"), ("b", "view"), ("c", "view")):
            done = c.Interaction(item_id=item, kind=kind)
            monitor.observe(InteractionsEvent("liked", [done] * 200))
        monitor.observe(InteractionsEvent("of nobody", [c.Interaction(item_id="a")]))
        clock.now = 60
        await monitor.close_windows()
    # A purchase weighs 5, so a, b and the rest have 1000, 200 and 200 now.
    before, now = np.array([1 / 4, 3 / 4, 0]), np.array([5 / 7, 1 / 7, 1 / 7])
    by_hand = _entropy((before + now) / 2) - (_entropy(before) + _entropy(now)) / 2
    found = metric("nearline_retrieval_popularity_drift", collection="liked")
    assert found == pytest.approx(by_hand)
    assert metric("nearline_retrieval_item_drift", collection="liked") == 30 / 300


def _entropy(shares: NDArray[np.float64]) -> float:
    return -sum(float(one) * math.log2(one) for one in shares if one)


@pytest.mark.parametrize("away", [True, False])
async def test_items_are_counted_once_all_shards_have_named_theirs(away: bool) -> None:
    async def candidates(*asked: object) -> ShardCandidates:
        return NO_CANDIDATES._replace(scored=[NO_ROWS])

    model = learned(["a"], {}, {})
    first, second = [SimpleNamespace(server=number, candidates=candidates) for number in range(2)]
    shards = [FailingShard(NotReady("away")) if away else first, second]
    served = SimpleNamespace(
        name="c", snapshot_id="s", learned=model, local_behaviour=None, shards=shards
    )
    counts = await drift._read_counts(cast(Any, served), model)
    assert (counts is None) == away


def test_items_are_counted_with_the_weights_of_their_kinds_and_the_rest_together() -> None:
    counts = ItemCounts(["a", "b"], np.array([3, 1], np.float32), 4.0, {"purchase": 5.0})
    counts.add([c.Interaction(item_id="a", kind="purchase")] * 499)
    assert counts.popularity() is None
    counts.add([c.Interaction(item_id="new", weight=7.0)])
    before, now = counts.popularity() or ((), ())
    assert list(before) == [3, 1, 0]
    assert list(now) == [499 * 5, 0, 7]


def test_the_reservoir_is_uniform_and_bounded() -> None:
    kept = np.zeros(20)
    for _ in range(2_000):
        sample = Reservoir(5)
        for number in range(20):
            sample.offer(SearchObservation(c.SearchMode.DENSE, float(number), None))
        assert len(sample.kept) == 5
        for one in sample.kept:
            assert one.score is not None
            kept[int(one.score)] += 1
    # 500 each; six standard deviations.
    assert np.abs(kept - 500).max() < 6 * math.sqrt(2_000 * 0.25 * 0.75)


async def test_a_share_of_zero_samples_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    _write(tmp_path, rng, "off")
    async with served_collections(tmp_path) as collections:
        monitor = DriftMonitor(Store(tmp_path), collections, 0.0)
        monitor.start()
        (served,) = collections.in_force
        monitor.observe(_search(served, np.ones(DIM, np.float32), 0.5))
        monitor.observe(InteractionsEvent("off", [c.Interaction(item_id="a")]))
        assert not monitor._monitored
        await monitor.close()
