"""Concurrent exact searches share a batch where that is cheap, and are split elsewhere."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pytest

from nearline.filters import Equals
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.index.thread_pool import ThreadPool
from retrieval.index.vectors import faiss_index, faiss_layers
from retrieval.index.vectors.vector_index import SearchParams
from retrieval.protocols.shard import ShardOptions, ShardQueries
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.shards.loader import load_shards
from retrieval.shards.local_shard import LocalShard
from tests.retrieval.small_snapshots import documents_of, write_snapshot


@pytest.mark.parametrize(
    ("factory", "rows", "options", "sizes"),
    [
        ("HNSW8", 1, {"exact": True}, [64, 2]),
        ("Flat", 1, {"exact": True}, [64, 2]),
        ("HNSW8", 1, {}, [*[16] * 4, 2]),
        ("HNSW8", 1, {"exact": True, "filter": Equals("kind", 1)}, [64, 2]),
        ("HNSW8", 10_000, {"exact": True}, [*[4] * 16, 2]),
        ("SQ8", 1, {"exact": True}, [*[4] * 16, 2]),
        ("IVF4,Flat", 1, {"exact": True}, [*[4] * 16, 2]),
    ],
)
async def test_queries_of_a_request_share_batches(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    factory: str,
    rows: int,
    options: dict[str, object],
    sizes: list[int],
) -> None:
    monkeypatch.setattr(faiss_layers, "PRODUCT_ROWS", rows)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    documents = documents_of(vectors)
    for one in documents:
        one.attributes = {"kind": 1}
    kind = snapshot_pb2.AttributeField(name="kind", kind=snapshot_pb2.AttributeField.KIND_INT)
    write_snapshot(tmp_path, documents, factory=factory, fields=[kind])
    (snapshot,) = read_current_snapshots(Store(tmp_path), ())
    threads = ThreadPool(1, faiss_index.use_one_thread)
    (loaded,) = load_shards(Store(tmp_path), snapshot, None, threads=threads)
    seen: list[float] = []
    shard = LocalShard(
        snapshot.snapshot_id, 0, loaded.shard.base, threads=threads, observe=seen.append
    )
    asked = ShardOptions(10)._replace(**options)  # type: ignore[arg-type]
    hits = await shard.search(snapshot.snapshot_id, ShardQueries(vectors[:66]), asked)
    threads.close()
    assert seen == sizes
    if asked.exact and factory != "SQ8":
        best = np.argsort(-(vectors[:66] @ vectors.T), axis=1, kind="stable")[:, :10]
        assert [list(one.ids) for one in hits] == [[f"d{n:05d}" for n in row] for row in best]


@pytest.mark.parametrize("factory", ["PCA4,IVF8,Flat", "PCA4,HNSW8,Flat", "OPQ2_4,IVF8,PQ2x4"])
@pytest.mark.parametrize("rows", [1, 10_000])
def test_vectors_that_are_transformed_first_are_searched_exactly(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, factory: str, rows: int
) -> None:
    monkeypatch.setattr(faiss_layers, "PRODUCT_ROWS", rows)
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    index = faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    # So wide that a search of the index misses nothing.
    served = faiss_index.FaissIndex(index, ef_search=600, nprobe=8)
    exact = served.search(vectors[:6], 10, SearchParams(exact=True))
    np.testing.assert_array_equal(exact.ids, served.search(vectors[:6], 10).ids)


async def test_other_searches_do_not_wait_for_an_exact_search(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), factory="HNSW8")
    (snapshot,) = read_current_snapshots(Store(tmp_path), ())
    threads, scanners = ThreadPool(1), ThreadPool(1)
    (loaded,) = load_shards(Store(tmp_path), snapshot, None, threads=threads, scanners=scanners)
    held = threading.Event()
    scanners.start(partial(_wait, held))
    queries = ShardQueries(vectors[:1])
    exact = loaded.shard.search(snapshot.snapshot_id, queries, ShardOptions(10, exact=True))
    (near,) = await loaded.shard.search(snapshot.snapshot_id, queries, ShardOptions(10))
    assert near.ids[0] == "d00000" and not exact.done()
    held.set()
    (best,) = await exact
    assert list(best.ids) == [f"d{n:05d}" for n in np.argsort(-(vectors @ vectors[0]))[:10]]
    threads.close()
    scanners.close()


def _wait(held: threading.Event) -> None:
    assert held.wait(10)
