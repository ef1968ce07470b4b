"""Filtered searches find the k best matches, whatever the filter."""

from __future__ import annotations

import copy
import gc
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from index_builder.documents.attribute_columns import infer_fields, write_attributes
from nearline import filters as f
from nearline.contract import PlanStrategy
from nearline.errors import InvalidRequest, Unsupported
from retrieval.index.filtering import planner
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.filter_cache import FilterCache
from retrieval.index.filtering.planner import FilteredSearch, Matches, calibrate
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import Neighbours, SearchParams

ROWS, DIM, K = 6_000, 24, 10
FACTORIES = ["Flat", "HNSW32,Flat", "HNSW32,SQ8", "IVF32,Flat"]


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Returns (ROWS, DIM) float32 in clusters, at unit length."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(30, DIM))
    points = centres[rng.integers(0, 30, ROWS)] + 0.5 * rng.normal(size=(ROWS, DIM))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32)


@pytest.fixture(scope="module")
def indexes(vectors: NDArray[np.float32]) -> dict[str, FaissIndex]:
    built = {}
    for factory in FACTORIES:
        index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
        built[factory] = FaissIndex(index, ef_search=32, nprobe=8)
    return built


def matches_of(chosen: NDArray[np.bool_]) -> Matches:
    bitmap = np.packbits(chosen, bitorder="little")
    return Matches(chosen, chosen, bitmap, int(chosen.sum()), np.flatnonzero(chosen))


def recall(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    ids: NDArray[np.int64],
) -> float:
    scores = np.where(chosen, queries @ vectors.T, -np.inf)
    edge = np.sort(scores, axis=1)[:, -K][:, None]
    return float((np.take_along_axis(scores, ids, axis=1) >= edge - 1e-6).mean())


def far_from(vectors: NDArray[np.float32], row: int, share: float) -> NDArray[np.bool_]:
    """Selects the rows least similar to one: a filter that contradicts the topic of a query."""
    scores = vectors @ vectors[row]
    chosen: NDArray[np.bool_] = scores <= np.quantile(scores, share)
    return chosen


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.01, 0.002])
@pytest.mark.parametrize("limit", [0, 500])
def test_recall_has_no_cliff_and_no_hit_is_missing(
    vectors: NDArray[np.float32],
    indexes: dict[str, FaissIndex],
    factory: str,
    share: float,
    limit: int,
    rng: np.random.Generator,
) -> None:
    queries = vectors[rng.choice(ROWS, 40, replace=False)]
    search = FilteredSearch(indexes[factory], ROWS, exact_limit=limit)
    for chosen in (rng.random(ROWS) < share, far_from(vectors, 3, share)):
        found, plan = search.search(queries, K, SearchParams(), matches_of(chosen))
        assert (found.ids >= 0).all() and chosen[found.ids].all()
        assert (np.diff(found.scores, axis=1) <= 0).all()
        # What SQ8 keeps is not quite what was given to it.
        assert recall(vectors, queries, chosen, found.ids) >= (0.9 if "SQ8" in factory else 0.95)
        assert plan.matches == chosen.sum() and plan.chunks == ROWS
        if factory == "Flat":
            assert plan.strategy is PlanStrategy.EXACT


def test_few_matches_are_compared_one_by_one(
    vectors: NDArray[np.float32], indexes: dict[str, FaissIndex], rng: np.random.Generator
) -> None:
    chosen = np.zeros(ROWS, np.bool_)
    chosen[rng.choice(ROWS, 500, replace=False)] = True
    search = FilteredSearch(indexes["HNSW32,Flat"], ROWS, exact_limit=500)
    found, plan = search.search(vectors[:20], K, SearchParams(), matches_of(chosen))
    assert plan.strategy is PlanStrategy.EXACT and plan.ef_search == 0
    assert "500 of 6,000 match" in plan.reason and "up to 500 matches for 10 hits" in plan.reason
    assert recall(vectors, vectors[:20], chosen, found.ids) == 1


def test_many_matches_are_searched_wider_and_callers_may_widen_further(
    vectors: NDArray[np.float32], indexes: dict[str, FaissIndex], rng: np.random.Generator
) -> None:
    search = FilteredSearch(indexes["HNSW32,Flat"], ROWS, exact_limit=200)
    matches = matches_of(np.arange(ROWS) % 2 == 0)
    one = rng.normal(size=(1, DIM)).astype(np.float32)
    _, plan = search.search(one, K, SearchParams(), matches)
    assert plan.strategy is PlanStrategy.BITMAP
    assert plan.ef_search >= round(32 * 2**0.75)
    assert f"ef_search {plan.ef_search} (32 without a filter)" in plan.reason
    _, plan = search.search(one, K, SearchParams(ef_search=333), matches)
    assert plan.ef_search >= 333


def test_an_exact_search_is_exact(
    vectors: NDArray[np.float32], indexes: dict[str, FaissIndex]
) -> None:
    chosen = np.arange(ROWS) % 2 == 0
    search = FilteredSearch(indexes["HNSW32,Flat"], ROWS, exact_limit=10)
    params = SearchParams(exact=True)
    found, plan = search.search(vectors[:20], K, params, matches_of(chosen))
    assert plan.strategy is PlanStrategy.EXACT and "was requested" in plan.reason
    assert recall(vectors, vectors[:20], chosen, found.ids) == 1


def test_a_search_with_too_few_hits_is_repeated_exactly(
    vectors: NDArray[np.float32],
    indexes: dict[str, FaissIndex],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planner, "MAX_WIDTH", 16)
    chosen = far_from(vectors, 5, 0.004)
    search = FilteredSearch(indexes["HNSW32,Flat"], ROWS, exact_limit=0)
    found, plan = search.search(vectors[5:6], K, SearchParams(), matches_of(chosen))
    assert plan.strategy is PlanStrategy.EXACT_AFTER_SHORT
    assert "returned too few" in plan.reason
    assert recall(vectors, vectors[5:6], chosen, found.ids) == 1


def test_a_query_without_matching_neighbours_is_compared_with_all_matches(
    vectors: NDArray[np.float32], indexes: dict[str, FaissIndex]
) -> None:
    chosen = far_from(vectors, 9, 0.5)
    search = FilteredSearch(indexes["HNSW32,Flat"], ROWS, exact_limit=1_000)
    found, plan = search.search(vectors[9:10], K, SearchParams(), matches_of(chosen))
    assert plan.strategy is PlanStrategy.EXACT
    assert "few of the nearest rows match" in plan.reason
    assert recall(vectors, vectors[9:10], chosen, found.ids) == 1


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("limit", [0, 500])
def test_all_matches_are_found_if_k_is_larger(
    vectors: NDArray[np.float32], indexes: dict[str, FaissIndex], factory: str, limit: int
) -> None:
    chosen = np.arange(ROWS) % 1_000 == 0
    search = FilteredSearch(indexes[factory], ROWS, exact_limit=limit)
    found, _ = search.search(vectors[:3], K, SearchParams(), matches_of(chosen))
    assert (np.sort(found.ids[:, :6], axis=1) == np.arange(0, ROWS, 1_000)).all()
    assert (found.ids[:, 6:] == -1).all() and np.isneginf(found.scores[:, 6:]).all()


def test_nothing_is_searched_if_nothing_matches(
    vectors: NDArray[np.float32], indexes: dict[str, FaissIndex]
) -> None:
    search = FilteredSearch(indexes["HNSW32,Flat"], ROWS)
    found, plan = search.search(
        vectors[:2], 3, SearchParams(), matches_of(np.zeros(ROWS, np.bool_))
    )
    assert plan.strategy is PlanStrategy.EMPTY and not found.full
    assert (found.ids == -1).all() and found.ids.shape == (2, 3)
    assert np.isneginf(found.scores).all() and found.scores.shape == (2, 3)


@pytest.mark.parametrize("limit", [0, ROWS])
def test_an_unsupported_width_is_rejected_by_every_strategy(
    vectors: NDArray[np.float32], indexes: dict[str, FaissIndex], limit: int
) -> None:
    search = FilteredSearch(indexes["HNSW32,Flat"], ROWS, exact_limit=limit)
    matches = matches_of(np.arange(ROWS) % 2 == 0)
    with pytest.raises(Unsupported, match="nprobe"):
        search.search(vectors[:1], K, SearchParams(nprobe=2), matches)


def test_calibration_stays_within_its_bounds(indexes: dict[str, FaissIndex]) -> None:
    assert calibrate(indexes["Flat"]) == ROWS
    for factory in FACTORIES[1:]:
        assert 1_000 <= calibrate(indexes[factory]) <= ROWS


@pytest.mark.parametrize(("seconds", "measurements"), [(0.0, 1), (math.inf, 8)])
def test_calibration_measures_until_its_time_is_up(
    indexes: dict[str, FaissIndex],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    measurements: int,
) -> None:
    index = copy.copy(indexes["HNSW32,Flat"])
    searched: list[bool] = []

    def search(*arguments: Any) -> Neighbours:
        searched.append(arguments[2].exact)
        bitmap, *rows = arguments[3:]
        allowed = np.flatnonzero(np.unpackbits(bitmap, count=ROWS, bitorder="little"))
        assert len(allowed) == (ROWS // 2 if rows else ROWS)
        assert not rows or np.array_equal(allowed, rows[0])
        return indexes["HNSW32,Flat"].search(*arguments)

    monkeypatch.setattr(planner, "_CALIBRATION_S", seconds)
    monkeypatch.setattr(index, "search", search)
    calibrate(index)
    assert searched == [True, False] * measurements


@pytest.mark.parametrize(
    ("rows", "widening"),
    [(1, 0.75), (50_000, 0.75), (223_607, 0.875), (1_000_000, 1.0), (10_000_000, 1.0)],
)
def test_a_filter_that_excludes_the_neighbourhood_widens_large_indexes_more(
    indexes: dict[str, FaissIndex],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    widening: float,
) -> None:
    filtered = FilteredSearch(indexes["HNSW32,Flat"], rows)
    near = np.array([0, 1, 8])
    monkeypatch.setattr(filtered, "_nearby_matches", lambda vectors, some, matches: near[vectors])
    kept = np.ones(0, np.bool_)
    half = planner.Matches(kept, kept, np.zeros(0, np.uint8), max(rows // 2, 1))
    monkeypatch.setattr(planner, "_PROBE_ROWS", (16,) if rows > 16 else ())
    shares = filtered._nearby_shares(np.arange(3), half)  # type: ignore[arg-type]
    if rows <= 16:
        assert shares.tolist() == [1, 1, 1]
        return
    # None, one and half of the 16 nearest rows match; half is no less than among all rows.
    assert shares**0.75 == pytest.approx(
        [(0.5 / 17) ** widening, (1.5 / 17) ** widening, (8.5 / 17) ** 0.75], rel=1e-5
    )


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
def test_at_the_calibrated_limit_both_strategies_cost_the_same(
    indexes: dict[str, FaissIndex], monkeypatch: pytest.MonkeyPatch, slowness: float
) -> None:
    exact_s, graph_s = 0.002, 0.001 * slowness
    # The first searches are slower, and do not count.
    steps = [0.0, *(second for _ in range(8) for second in (0.0, exact_s, graph_s))]
    steps[2:4] = 1.0, 1.0
    clock = SimpleNamespace(perf_counter=itertools.accumulate(steps).__next__)
    monkeypatch.setattr(planner, "time", clock)
    monkeypatch.setattr(planner, "_CALIBRATION_S", math.inf)
    limit = calibrate(indexes["HNSW32,Flat"])
    wider = (ROWS / limit) ** planner.WIDENING
    assert exact_s / (ROWS // 2) * limit == pytest.approx(graph_s * wider, rel=0.002)


@pytest.fixture
def table(tmp_path: Path) -> AttributeTable:
    texts = [f'{{"n": {n}, "even": {"true" if n % 2 == 0 else "false"}}}' for n in range(100)]
    fields = infer_fields(((text, "x:1") for text in texts), {})
    write_attributes(tmp_path / "attributes.arrow", fields, texts)
    return AttributeTable.load(tmp_path / "attributes.arrow", fields, 100)


def test_matches_of_documents_become_matches_of_their_chunks(table: AttributeTable) -> None:
    first_rows = np.concatenate(([0], np.cumsum(np.arange(100) % 3 + 1)))
    matches = FilterCache(table, first_rows).matches(f.Equals("even", True))
    wanted = np.repeat(np.arange(100) % 2 == 0, np.diff(first_rows))
    np.testing.assert_array_equal(matches.documents, np.arange(100) % 2 == 0)
    np.testing.assert_array_equal(matches.chunks, wanted)
    np.testing.assert_array_equal(matches.rows, np.flatnonzero(wanted))
    unpacked = np.unpackbits(matches.bitmap, bitorder="little")[: len(wanted)]
    np.testing.assert_array_equal(unpacked, wanted)
    assert matches.count == wanted.sum()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("chunks", [1, 3])
def test_matches_are_restricted_to_alive_rows(
    table: AttributeTable, monkeypatch: pytest.MonkeyPatch, kept: bool, chunks: int
) -> None:
    if not kept:
        monkeypatch.setattr("retrieval.index.filtering.filter_cache._MAX_ROW_NUMBERS", 3)
    cache = FilterCache(table, np.arange(101) * chunks)
    alive = cache.matches(f.Range("n", gte=30))
    found = cache.matches(f.Equals("even", True)).among(alive)
    wanted = (np.arange(100) % 2 == 0) & (np.arange(100) >= 30)
    rows = np.repeat(wanted, chunks)
    np.testing.assert_array_equal(found.documents, wanted)
    np.testing.assert_array_equal(found.chunks, rows)
    np.testing.assert_array_equal(found.bitmap, np.packbits(rows, bitorder="little"))
    assert found.count == 35 * chunks
    assert (found.rows is not None) == kept
    if found.rows is not None:
        np.testing.assert_array_equal(found.rows, np.flatnonzero(rows))


def test_a_cached_filter_is_evaluated_once(table: AttributeTable) -> None:
    cache = FilterCache(table, np.arange(101), max_bytes=2_000)
    kept = cache.matches(f.Equals("n", 1))
    assert cache.matches(f.Equals("n", 1)) is kept
    for n in range(2, 40):
        cache.matches(f.Equals("n", n))
    assert cache.matches(f.Equals("n", 39)) is not kept
    assert cache.matches(f.Equals("n", 1)) is not kept


def test_cached_filters_are_counted_even_if_there_are_no_documents() -> None:
    fields = infer_fields([('{"n": "a"}', "x:1")], {})
    empty = AttributeTable(pa.table({"n": pa.array([], pa.string())}), fields, 0)
    cache = FilterCache(empty, np.arange(1), max_bytes=100_000)
    kept = cache.matches(f.Equals("n", "first"))
    for n in range(200):
        cache.matches(f.In("n", tuple(f"{n} {value}" for value in range(100))))
    assert cache.matches(f.Equals("n", "first")) is not kept


def test_a_cached_filter_takes_the_memory_of_its_matches_and_not_of_its_values(
    table: AttributeTable,
) -> None:
    cache = FilterCache(table, np.arange(101))
    for n in range(100):
        cache.matches(f.In("n", tuple(range(n, n + 100))))
    gc.collect()
    kept = [one for one in gc.get_objects() if type(one) is f.In and len(one.values) == 100]
    assert not kept


def test_filters_equal_in_python_but_of_other_kinds_are_distinguished(
    table: AttributeTable,
) -> None:
    cache = FilterCache(table, np.arange(101))
    cache.matches(f.Equals("even", True))
    with pytest.raises(InvalidRequest, match="has an int"):
        cache.matches(f.Equals("even", 1))
