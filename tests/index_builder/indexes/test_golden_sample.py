"""Golden queries are near the data and stored with exact results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from index_builder.indexes import golden_sample
from index_builder.indexes.exact_search import scan
from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.store.snapshot import shard_of
from tests.index_builder.embedders import HashEmbedder, vector_of


def test_mixtures_are_near_their_vectors_without_equalling_them(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = golden_sample.sample_rows(200, 50, seed=1)
    mixed = golden_sample.mixtures(vectors, rows, 1, unit=True)
    nearest = scan(vectors, mixed, 1)
    assert np.allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-6)
    assert (nearest.rows[:, 0] == rows).mean() > 0.9
    assert nearest.scores.max() < 0.999
    assert len(set(rows.tolist())) == 50
    assert np.array_equal(rows, golden_sample.sample_rows(200, 50, seed=1))


def test_the_mixture_of_a_single_vector_is_that_vector() -> None:
    mixed = golden_sample.mixtures(np.ones((1, 1), np.float32), np.array([0]), 0, unit=True)
    assert mixed.tolist() == [[1.0]]


async def test_golden_queries_of_a_snapshot_hold_exact_results_over_all_shards(
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
async def test_recall_of_each_index_type_has_a_floor(
    tmp_path: Path, rng: np.random.Generator, factory: str, floor: float
) -> None:
    vectors = rng.normal(size=(1500, 24)).astype(np.float32)
    documents = [Item(id=str(n), vector=row) for n, row in enumerate(vectors)]
    options = BuildOptions(
        store=str(tmp_path), shards=2, index=IndexOptions(factory=factory, threads=1)
    )
    result = await build_snapshot(documents, options)
    assert floor <= result.recall_at_10 <= 1.0
