"""Exact answers are exact, and recall is what brute force says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from index_builder.indexes import golden_queries
from index_builder.indexes.golden_queries import GoldenQueries
from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.snapshot import shard_of
from tests.index_builder.embedders import HashEmbedder, vector_of


def test_exact_search_in_blocks_is_brute_force(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index_builder.indexes.golden_queries._BLOCK_NUMBERS", 64)
    vectors = rng.integers(-9, 9, (101, 4)).astype(np.float32)
    queries = rng.integers(-9, 9, (7, 4)).astype(np.float32)
    rows, scores = golden_queries.exact_search(vectors, queries, 10)
    products = queries @ vectors.T
    assert np.array_equal(scores, -np.sort(-products, axis=1)[:, :10])
    assert np.array_equal(np.take_along_axis(products, rows, axis=1), scores)


def test_recall_counts_what_is_as_good_as_the_exact_answers() -> None:
    vectors = np.array([[4], [3], [2], [2], [1]], np.float32)
    exact = GoldenQueries(
        vectors=np.ones((1, 1), np.float32),
        rows=np.array([[0, 1, 2]]),
        scores=np.array([[4, 3, 2]], np.float32),
    )

    def recall(*rows: int) -> float:
        found = np.array([rows])
        return golden_queries.recall(
            exact, vectors, found, np.where(found >= 0, -found, 0).astype("f4")
        )

    assert recall(0, 1, 2) == recall(0, 1, 3) == 1.0  # Rows 2 and 3 tie.
    assert recall(0, 1, 4) == pytest.approx(2 / 3)
    assert recall(0, -1, -1) == pytest.approx(1 / 3)
    assert recall(0, 1, 4, 2) == 1.0  # The index scores row 2 above row 4.


def test_mixtures_are_near_their_vectors_and_none_of_them(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = golden_queries.sample_rows(200, 50, seed=1)
    mixed = golden_queries.mixtures(vectors, rows, 1, unit=True)
    nearest = golden_queries.exact_search(vectors, mixed, 1)
    assert np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-6)
    assert (nearest[0][:, 0] == rows).mean() > 0.9
    assert nearest[1].max() < 0.999
    assert len(set(rows.tolist())) == 50
    assert np.array_equal(rows, golden_queries.sample_rows(200, 50, seed=1))


def test_a_single_vector_can_be_asked() -> None:
    mixed = golden_queries.mixtures(np.ones((1, 1), np.float32), np.array([0]), 0, unit=True)
    assert mixed.tolist() == [[1.0]]


async def test_golden_queries_of_a_snapshot_carry_exact_answers_over_all_shards(
    tmp_path: Path,
) -> None:
    texts = {f"d{n:02}": f"This is sentence number {n}." for n in range(60)}
    documents = [Item(id=id_, text=text) for id_, text in texts.items()]
    options = BuildOptions(store=str(tmp_path), shards=3, golden_queries=20)
    result = await build_snapshot(documents, options, HashEmbedder())
    assert result.recall_at_10 == 1.0
    path = result.folder / "golden" / "queries.arrow"
    rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_pylist()
    assert len(rows) == 20
    for row in rows:
        query = np.array(row["vector"], np.float32)
        best = sorted(texts, key=lambda id_: -float(vector_of(texts[id_]) @ query))[:10]
        assert row["ids"] == best
        assert row["chunks"] == [0] * 10
        assert np.allclose(row["scores"], [vector_of(texts[id_]) @ query for id_ in best])
    assert len({shard_of(id_, 3) for id_ in rows[0]["ids"]}) > 1


@pytest.mark.parametrize(
    ("factory", "floor"),
    [
        ("Flat", 1.0),
        ("HNSW32,Flat", 0.98),
        ("IVF8,Flat", 0.98),
        ("HNSW32,SQ8", 0.93),
        ("SQ8", 0.95),
    ],
)
async def test_recall_has_a_floor_by_index(
    tmp_path: Path, rng: np.random.Generator, factory: str, floor: float
) -> None:
    vectors = rng.normal(size=(1500, 24)).astype(np.float32)
    documents = [Item(id=str(n), vector=row) for n, row in enumerate(vectors)]
    options = BuildOptions(
        store=str(tmp_path), shards=2, index=IndexOptions(factory=factory, threads=1)
    )
    result = await build_snapshot(documents, options)
    assert floor <= result.recall_at_10 <= 1.0
