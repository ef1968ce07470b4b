"""A matrix product misses no row that a scan would find, and scores stay the same."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from retrieval.index.vectors import faiss_layers, matrix_scan
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.matrix_scan import MatrixScan
from retrieval.index.vectors.vector_index import SearchParams


@pytest.mark.parametrize("numbers", [256, 1 << 18])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1 << 30), rows=st.integers(1, 700), queries=st.integers(1, 64))
def test_all_rows_that_may_be_best_are_candidates(
    numbers: int, seed: int, rows: int, queries: int
) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct values: many ties, which must all be there.
    vectors = rng.integers(-1, 2, (rows, 4)).astype(np.float32)
    asked = rng.integers(-1, 2, (queries, 4)).astype(np.float32)
    k = int(rng.integers(1, rows + 1))
    scores = asked @ vectors.T
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(matrix_scan, "_BLOCK_COMPONENTS", numbers)
        found = MatrixScan(vectors).candidates(asked, k)
    for row in scores:
        edge = np.sort(row)[-k]
        assert set(np.flatnonzero(row >= edge)) <= set(found.tolist())
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("dim", [1, 2, 3, 24])
def test_rows_within_the_rounding_error_of_the_best_are_candidates(
    rng: np.random.Generator, dim: int
) -> None:
    vectors = np.ones((300, dim), np.float32)
    vectors += rng.normal(scale=2e-7, size=vectors.shape).astype(np.float32)
    queries = rng.normal(size=(8, dim)).astype(np.float32)
    found = set(MatrixScan(vectors).candidates(queries, 10).tolist())
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    lengths = np.linalg.norm(queries, axis=1) * np.linalg.norm(vectors, axis=1).max()
    # Both the score of a row and the k-th best score may be wrong by this much.
    errors = dim * np.finfo(np.float32).eps / 2 * lengths
    for scores, error in zip(exact, errors, strict=True):
        edge = np.sort(scores)[-10]
        assert set(np.flatnonzero(scores >= edge - 2 * error)) <= found


def test_candidates_do_not_depend_on_the_length_of_the_vectors(rng: np.random.Generator) -> None:
    # Scores that differ by about the rounding error.
    vectors = np.ones((500, 16), np.float32)
    vectors += rng.normal(scale=1e-7, size=vectors.shape).astype(np.float32)
    queries = rng.normal(size=(4, 16)).astype(np.float32)
    found = MatrixScan(vectors).candidates(queries, 10)
    assert len(found) > 40
    for scale in (2.0**-12, 2.0**12):
        scaled = MatrixScan(vectors * np.float32(scale)).candidates(queries, 10)
        np.testing.assert_array_equal(scaled, found)


def test_vectors_may_be_unaligned(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(1_000, 16)).astype(np.float32)
    # As in a file of FAISS, whose head has an odd length.
    mapped = np.frombuffer(b"x" + vectors.tobytes(), np.float32, offset=1).reshape(vectors.shape)
    assert not mapped.flags.aligned
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(matrix_scan, "_BLOCK_COMPONENTS", 1_600)
        found = MatrixScan(mapped).candidates(vectors[:16], 10)
        same = MatrixScan(vectors).candidates(vectors[:16], 10)
    np.testing.assert_array_equal(found, same)


def test_few_other_rows_are_candidates(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(20_000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = MatrixScan(vectors).candidates(vectors[:16], 10)
    assert len(found) <= 16 * 12


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat"])
@pytest.mark.parametrize("k", [1, 10, 300, 500])
def test_a_query_scores_the_same_in_a_batch_and_alone(
    rng: np.random.Generator, factory: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_layers, "PRODUCT_ROWS", 1)
    vectors = rng.normal(size=(400, 48)).astype(np.float32)
    vectors[100:140] = vectors[7]
    index = faiss.index_factory(48, factory, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    served = FaissIndex(index)
    exact = SearchParams(exact=True)
    queries = np.concatenate([vectors[7:8], rng.normal(size=(20, 48)).astype(np.float32)])
    together = served.search(queries, k, exact)
    assert served._product is not None
    for number, query in enumerate(queries):
        alone = served.search(query[None], k, exact)
        np.testing.assert_array_equal(together.ids[number], alone.ids[0])
        np.testing.assert_array_equal(together.scores[number], alone.scores[0])


def test_many_equal_rows_are_searched_the_same_in_a_batch_and_alone() -> None:
    vectors = np.ones((9_000, 8), np.float32)
    index = faiss.IndexFlatIP(8)
    index.add(vectors)
    found = FaissIndex(index).search(np.ones((5, 8), np.float32), 3)
    assert (found.scores == 8).all()
    alone = FaissIndex(index).search(np.ones((1, 8), np.float32), 3)
    np.testing.assert_array_equal(found.ids, np.repeat(alone.ids, 5, axis=0))
