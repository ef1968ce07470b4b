"""Every index type, built, written, mapped and served, equals brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from index_builder.indexes.faiss_writer import (
    build_index,
    check_factory,
    choose_factory,
    search_index,
    write_index,
)
from index_builder.options.build_options import IndexOptions
from nearline.errors import InvalidRequest
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.int8_codec import int8_scale, quantize, scale_queries
from retrieval.index.vectors.vector_index import SearchParams

DIM = 32
ROWS = 2_000
# Recall@10 at least; and the error of a score, which only the stage that scores makes.
KINDS = [
    ("HNSW32,SQfp16", 0.97, 1e-3),
    ("HNSW32,SQbf16", 0.97, 1e-2),
    ("HNSW32,SQ8", 0.95, 2e-2),
    ("HNSW32,SQ8,RFlat", 0.99, 1e-6),
    ("HNSW32,SQ8,Refine(SQfp16)", 0.99, 1e-3),
    ("HNSW32,SQ8,Refine(SQ8)", 0.95, 2e-2),
    ("HNSW32,SQ8_direct_signed,RFlat", 0.99, 1e-6),
    ("HNSW32,SQ4,RFlat", 0.97, 1e-6),
    ("IVF16,SQ8,RFlat", 0.99, 1e-6),
    ("IVF16,SQfp16", 0.99, 1e-3),
    ("IVF16,RaBitQ,Refine(SQfp16)", 0.90, 1e-3),
    ("IVF16,RaBitQfs,Refine(SQfp16)", 0.90, 1e-3),
    ("IVF16,RaBitQfs4,Refine(SQ8)", 0.95, 2e-2),
    ("RR32,IVF16,RaBitQfs4,RFlat", 0.99, 1e-6),
    ("IVF16,PQ16x4fs,Refine(SQfp16)", 0.95, 1e-3),
    ("SQ8,RFlat", 0.99, 1e-6),
]


@pytest.fixture
def clustered(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    centres = rng.normal(size=(40, DIM))
    points = centres[rng.integers(0, 40, ROWS + 100)] + 0.5 * rng.normal(size=(ROWS + 100, DIM))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points[:ROWS].astype(np.float32), points[ROWS:].astype(np.float32)


@pytest.mark.parametrize(("factory", "least", "error"), KINDS)
def test_each_index_type_is_served_as_built(
    clustered: tuple[NDArray[np.float32], NDArray[np.float32]],
    tmp_path: Path,
    factory: str,
    least: float,
    error: float,
) -> None:
    vectors, queries = clustered
    options = IndexOptions(factory=factory, nprobe=16, ef_construction=100)
    factory = choose_factory(options, ROWS)
    check_factory(factory, DIM, [ROWS])
    index, defaults = build_index(
        factory, vectors, np.arange(ROWS), options, shard=0, seed=0, advance=lambda rows: None
    )
    write_index(index, tmp_path / "dense.faiss")
    served = FaissIndex.load(
        tmp_path / "dense.faiss", factory, dim=DIM, rows=ROWS,
        ef_search=defaults.ef_search, nprobe=defaults.nprobe,
    )  # fmt: skip
    served.warm()
    true = queries @ vectors.T
    edge = np.partition(true, -10, axis=1)[:, -10:].min(axis=1, keepdims=True)

    found = served.search(queries, 10)
    own = np.take_along_axis(true, found.ids, axis=1)
    assert (own >= edge - 1e-6).mean() >= least
    np.testing.assert_allclose(found.scores, own, atol=error)
    assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()
    # The builder measures what will be served.
    places, scores = search_index(index, queries, 14, defaults)
    assert (places[:, :10] == found.ids).mean() > 0.99
    np.testing.assert_allclose(np.sort(scores[:, :10]), np.sort(found.scores), atol=2 * error)

    exact = served.search(queries, 10, SearchParams(exact=True))
    own = np.take_along_axis(true, exact.ids, axis=1)
    np.testing.assert_allclose(own, np.maximum(own, edge - 2 * error))
    np.testing.assert_allclose(served.reconstruct(exact.ids[:, 0]),
                               vectors[exact.ids[:, 0]], atol=max(error, 1e-6) * 2)  # fmt: skip


def test_a_refined_sq8_graph_ranks_by_integers() -> None:
    chosen = {
        factory: choose_factory(IndexOptions(factory=factory), 1)
        for factory in (
            "HNSW32,SQ8,RFlat",
            "HNSW16,SQ8,Refine(SQfp16)",
            "HNSW32,SQ8",
            "IVF8,SQ8,RFlat",
        )
    }
    assert chosen == {
        "HNSW32,SQ8,RFlat": "HNSW32,SQ8_direct_signed,RFlat",
        "HNSW16,SQ8,Refine(SQfp16)": "HNSW16,SQ8_direct_signed,Refine(SQfp16)",
        "HNSW32,SQ8": "HNSW32,SQ8",
        "IVF8,SQ8,RFlat": "IVF8,SQ8,RFlat",
    }


@pytest.mark.parametrize(
    "factory", ["HNSW32,SQ8_direct_signed", "SQ8_direct_signed,RFlat", "IVF4,SQ8_direct_signed"]
)
def test_the_integer_codec_needs_a_graph_and_a_refine_stage(factory: str) -> None:
    with pytest.raises(InvalidRequest, match="which cannot give scores"):
        check_factory(factory, DIM, [ROWS])


@pytest.mark.parametrize(
    ("factory", "factor", "expected"),
    [
        ("HNSW8,SQ8,RFlat", 0.0, 1.5),
        ("HNSW8,SQ4,RFlat", 0.0, 3.0),
        ("IVF4,PQ16x4fs,Refine(SQ8)", 0.0, 10.0),
        ("IVF4,RaBitQfs,Refine(SQ8)", 7.0, 7.0),
    ],
)
def test_fewer_bits_rescore_more_candidates(
    clustered: tuple[NDArray[np.float32], NDArray[np.float32]],
    factory: str,
    factor: float,
    expected: float,
) -> None:
    options = IndexOptions(refine_factor=factor)
    index, _ = build_index(
        factory, clustered[0], np.arange(500), options, shard=0, seed=0, advance=lambda rows: None
    )
    assert index.k_factor == expected


@given(arrays(np.float32, (3, 5), elements=st.integers(-(1 << 20), 1 << 20)), st.integers(-60, 60))
def test_scaling_a_query_changes_no_digit(whole: NDArray[np.float32], exponent: int) -> None:
    queries = whole * np.float32(2.0**exponent)
    scaled, factors = scale_queries(queries)
    tops = np.abs(scaled).max(axis=1)
    assert ((tops < 128) & ((tops >= 64) | (tops == 0))).all()
    np.testing.assert_array_equal(scaled / factors, queries)


def test_vectors_fill_the_range_and_what_exceeds_it_is_clipped() -> None:
    sample = np.array([[0.5, -0.25], [0.0, 0.1]], np.float32)
    scale = int8_scale(sample)
    assert scale == 254.0
    outlier = np.array([[1.0, -0.25]], np.float32)
    np.testing.assert_array_equal(quantize(outlier, scale), [[127.0, -64.0]])
    assert int8_scale(np.zeros((2, 2), np.float32)) == 1.0
