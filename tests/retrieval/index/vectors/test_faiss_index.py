"""`FaissIndex`: order, ties, widths, selectors and versions."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt, SnapshotMismatch, Unsupported
from retrieval.index.vectors import faiss_index
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import SearchParams

DIM = 16


def built(factory: str, vectors: NDArray[np.float32]) -> faiss.Index:
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    return index


def brute_force(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def packed(allowed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(allowed, bitorder="little")


@pytest.fixture
def clustered(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    centres = rng.normal(size=(40, DIM))
    points = centres[rng.integers(0, 40, 5_100)] + 0.5 * rng.normal(size=(5_100, DIM))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points[:5_000].astype(np.float32), points[5_000:].astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1 << 30),
    rows=st.integers(1, 400),
    k=st.integers(1, 450),
    factory=st.sampled_from(["Flat", "HNSW8,Flat"]),
)
def test_an_exact_search_is_brute_force_ties_included(
    seed: int, rows: int, k: int, factory: str
) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct integer values: many equal scores, all of them exact in float32.
    vectors = rng.integers(-1, 2, (rows, 4)).astype(np.float32)
    queries = rng.integers(-1, 2, (3, 4)).astype(np.float32)
    # Flat scans anyway: it need not be told.
    params = SearchParams(exact=factory != "Flat")
    found = FaissIndex(built(factory, vectors)).search(queries, k, params)
    wanted, scores = brute_force(vectors, queries, k)
    have = min(k, rows)
    np.testing.assert_array_equal(found.ids[:, :have], wanted)
    np.testing.assert_array_equal(found.scores[:, :have], scores)
    assert (found.ids[:, have:] == -1).all()
    assert np.isneginf(found.scores[:, have:]).all()


def test_hnsw_finds_the_nearest_rows_and_orders_ties_by_row(
    clustered: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    vectors, queries = clustered
    twice = np.repeat(vectors, 2, axis=0)
    index = FaissIndex(built("HNSW32,Flat", twice), ef_search=64)
    found = index.search(queries, 10)
    edge = brute_force(twice, queries, 10)[1][:, -1:]
    assert (found.scores >= edge - 1e-6).mean() >= 0.97
    equal = found.scores[:, 1:] == found.scores[:, :-1]
    assert equal.any()
    assert (found.ids[:, 1:] > found.ids[:, :-1])[equal].all()


@pytest.mark.parametrize("factory", ["HNSW8,Flat", "HNSW8,Flat,RFlat", "PCA48,HNSW8,Flat"])
def test_a_selector_does_not_reset_the_width_where_the_width_matters(factory: str) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(2_000, 64)).astype(np.float32)
    queries = rng.normal(size=(40, 64)).astype(np.float32)
    graph = built(factory, vectors)
    narrow, wide = FaissIndex(graph, ef_search=16), FaissIndex(graph, ef_search=256)
    everything = packed(np.ones(len(vectors), np.bool_))
    found = wide.search(queries, 10).ids
    # On this data the width shows, so that the comparisons below can fail.
    assert (narrow.search(queries, 10).ids == found).mean() < 0.7
    np.testing.assert_array_equal(wide.search(queries, 10, allow=everything).ids, found)
    asked = SearchParams(ef_search=256)
    np.testing.assert_array_equal(narrow.search(queries, 10, asked, everything).ids, found)


def test_an_index_without_given_widths_is_searched_with_those_of_faiss(
    clustered: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    vectors, queries = clustered[0][:1_000], clustered[1]
    for factory in ("HNSW32,Flat", "IVF64,Flat"):
        index = FaissIndex(built(factory, vectors))
        assert (index.describe().ef_search, index.describe().nprobe) == (64, 1)
        given = FaissIndex(built(factory, vectors), ef_search=64, nprobe=1)
        found = index.search(queries, 3)
        assert (found.ids[:, 0] >= 0).all()
        np.testing.assert_array_equal(found.ids, given.search(queries, 3).ids)


@pytest.mark.parametrize("factory", ["Flat", "HNSW32,Flat", "IVF16,Flat", "IVF16,SQ8", "SQ8"])
@pytest.mark.parametrize("count", [1, 7, 60, 1_000])
def test_row_numbers_and_a_bitmap_find_the_same_rows(
    clustered: tuple[NDArray[np.float32], NDArray[np.float32]],
    factory: str,
    count: int,
    rng: np.random.Generator,
) -> None:
    vectors, queries = clustered
    rows = np.sort(rng.choice(len(vectors), count, replace=False))
    allow = packed(np.isin(np.arange(len(vectors)), rows))
    index = FaissIndex(built(factory, vectors), ef_search=64, nprobe=2)
    exact = SearchParams(exact=True)
    by_number = index.search(queries, 10, exact, allow, rows)
    by_bitmap = index.search(queries, 10, exact, allow)
    np.testing.assert_allclose(by_number.scores, by_bitmap.scores, atol=1e-5)
    assert (by_number.ids == by_bitmap.ids).mean() > 0.99
    have = min(count, 10)
    assert np.isin(by_number.ids[:, :have], rows).all() and (by_number.ids[:, have:] == -1).all()


def test_a_query_scores_the_same_alone_and_in_a_large_batch(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(500, 384)).astype(np.float32)
    queries = rng.normal(size=(700, 384)).astype(np.float32)
    index = FaissIndex(built("Flat", vectors))
    together = index.search(queries, 5, SearchParams(exact=True))
    for row in (0, 350, 699):
        alone = index.search(queries[row : row + 1], 5, SearchParams(exact=True))
        np.testing.assert_array_equal(alone.scores[0], together.scores[row])


def test_an_l2_index_returns_negated_distances(rng: np.random.Generator) -> None:
    vectors = rng.integers(-3, 4, (50, 4)).astype(np.float32)
    index = faiss.IndexFlatL2(4)
    index.add(vectors)
    found = FaissIndex(index).search(vectors[:1], 50)
    assert found.scores[0, 0] == 0
    assert (np.diff(found.scores[0]) <= 0).all()


@pytest.mark.parametrize(
    ("factory", "params", "field"),
    [
        ("Flat", SearchParams(ef_search=10), "options.ef_search"),
        ("HNSW8,Flat", SearchParams(nprobe=2), "options.nprobe"),
        ("IVF4,Flat", SearchParams(ef_search=10), "options.ef_search"),
    ],
)
def test_an_unsupported_width_is_rejected(
    rng: np.random.Generator, factory: str, params: SearchParams, field: str
) -> None:
    index = FaissIndex(built(factory, rng.normal(size=(200, 8)).astype(np.float32)))
    with pytest.raises(Unsupported, match="has no") as caught:
        index.search(np.zeros((1, 8), np.float32), 1, params)
    assert caught.value.field == field


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat", "IVF8,Flat"])
def test_a_mapped_index_reconstructs_its_vectors(
    tmp_path: Path, rng: np.random.Generator, factory: str
) -> None:
    vectors = rng.normal(size=(400, 8)).astype(np.float32)
    path = tmp_path / "dense.faiss"
    faiss.write_index(built(factory, vectors), str(path))
    index = FaissIndex.load(path, factory, dim=8, rows=400, nprobe=8)
    index.warm()
    np.testing.assert_array_equal(index.reconstruct(np.array([3, 399, 0])), vectors[[3, 399, 0]])
    np.testing.assert_array_equal(index.search(vectors[7:8], 1).ids, [[7]])
    index.close()


def test_a_file_that_contradicts_the_manifest_is_rejected(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "dense.faiss"
    faiss.write_index(built("Flat", rng.normal(size=(9, 8)).astype(np.float32)), str(path))
    with pytest.raises(SnapshotMismatch, match="dim 8, the manifest says 16"):
        FaissIndex.load(path, "Flat", dim=16, rows=9)
    with pytest.raises(SnapshotCorrupt, match="9 vectors, the manifest says 10"):
        FaissIndex.load(path, "Flat", dim=8, rows=10)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SnapshotCorrupt, match="not a readable FAISS index"):
        FaissIndex.load(path, "Flat", dim=8, rows=9)
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(SnapshotCorrupt, match="not a readable FAISS index"):
        FaissIndex.load(path, "Flat", dim=8, rows=9)


def test_another_minor_version_of_faiss_is_rejected_with_both_versions() -> None:
    faiss_index.check_version(faiss.__version__)
    major, minor = faiss.__version__.split(".")[:2]
    faiss_index.check_version(f"{major}.{minor}.99")
    with pytest.raises(SnapshotMismatch, match=r"0\.1\.2.*" + faiss.__version__):
        faiss_index.check_version("0.1.2")
