"""Recall of sampled searches, compared with exact ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline import contract as c
from nearline.filters import Equals
from nearline.v1 import snapshot_pb2
from retrieval.monitoring.recall import RecallMonitor, core_seconds
from retrieval.monitoring.recall_metrics import compute_recall
from retrieval.protocols.shard import ShardQueries
from retrieval.search.collection import ServedCollection
from retrieval.search.executor import BatchResult, search
from retrieval.search.queries import QueryBatch
from retrieval.search.request_context import RequestContext
from tests.retrieval.fakes import SilentShard, WordEmbedder
from tests.retrieval.monitoring.monitored_collection import metric, searched, served_collections
from tests.retrieval.small_snapshots import Document, documents_of, write_snapshot

DIM = 16


def _always(served: ServedCollection, arm: c.Arm | None) -> float:
    return 1.0


def _write_halves(root: Path, name: str, factory: str, vectors: NDArray[np.float32]) -> None:
    """Writes documents with an attribute `part`, 0 or 1."""
    documents = [
        Document(id=f"d{n}", vectors=vector[None], attributes={"part": n % 2})
        for n, vector in enumerate(vectors)
    ]
    field = snapshot_pb2.AttributeField(name="part", kind=snapshot_pb2.AttributeField.KIND_INT)
    write_snapshot(root, documents, collection=name, factory=factory, fields=[field])


def _hit(id: str, score: float, shard: int = 0, chunk: int = 0) -> c.Hit:
    why = c.Explanation(dense_score=score, lexical_score=None, shard=shard)
    return c.Hit(id=id, score=score, chunk=chunk, explanation=why)


def test_recall_in_total_and_by_shard() -> None:
    best = [_hit("a", 0.9, 0), _hit("b", 0.8, 1), _hit("c", 0.7, 1), _hit("d", 0.6, 1)]
    found = [_hit("a", 0.9, 0), _hit("c", 0.7, 1), _hit("x", 0.5, 0)]
    recall, by_shard = compute_recall(best, found)
    assert recall == 0.5
    assert by_shard == {0: 1.0, 1: pytest.approx(1 / 3)}


def test_ties_at_the_last_place_count_as_found() -> None:
    best = [_hit("a", 0.9), _hit("b", 0.5), _hit("c", 0.5)]
    tied = [_hit("a", 0.9), _hit("c", 0.5), _hit("z", 0.5 - 2e-6)]
    assert compute_recall(best, tied).recall == 1.0
    # It stands for one that is tied, not for one that is better.
    assert compute_recall(best, [_hit("b", 0.5), _hit("c", 0.5), _hit("z", 0.5)]).recall == 2 / 3
    assert compute_recall(best, [_hit("a", 0.9), _hit("c", 0.5), _hit("z", 0.49)]).recall == 2 / 3


def test_chunks_of_a_document_are_distinct_at_chunk_level() -> None:
    best, found = [_hit("a", 0.9, chunk=1)], [_hit("a", 0.8, chunk=0)]
    assert compute_recall(best, found).recall == 1.0
    assert compute_recall(best, found, chunks=True).recall == 0.0


@pytest.mark.parametrize("shards", [1, 3])
async def test_recall_of_a_crippled_graph_matches_brute_force(
    tmp_path: Path, rng: np.random.Generator, shards: int
) -> None:
    vectors = rng.normal(size=(3000, DIM)).astype(np.float32)
    name = f"crippled{shards}"
    write_snapshot(
        tmp_path,
        documents_of(vectors),
        collection=name,
        shards=shards,
        factory="HNSW4",
        ef_search=10,
    )
    queries = rng.normal(size=(60, DIM)).astype(np.float32)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    told: list[tuple[str, c.Arm | None, float]] = []
    by_hand = []
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, lambda *one: told.append(one))
        (served,) = collections.in_force
        for query, best in zip(queries, exact, strict=True):
            one = await searched(served, c.Query(vector=query), arm=c.Arm.CANARY)
            monitor.observe(one)
            by_hand.append(len({f"d{row:05d}" for row in best} & {hit.id for hit in one.hits}) / 10)
        while await monitor.check_batch():
            pass
    assert 0.2 < np.mean(by_hand) < 0.95
    assert sorted(value for _, _, value in told) == pytest.approx(sorted(by_hand))
    assert {(one[0], one[1]) for one in told} == {(name, c.Arm.CANARY)}
    recall = "nearline_retrieval_online_recall"
    labels = {"collection": name, "arm": "canary"}
    assert metric(f"{recall}_mean", **labels) == pytest.approx(np.mean(by_hand))
    assert metric(f"{recall}_count", filter="none", **labels) == 60
    each = [metric(f"{recall.replace('recall', 'shard_recall')}_count", shard=str(n), **labels)
            for n in range(shards)]  # fmt: skip
    assert all(0 < count <= 60 for count in each)


async def test_searches_that_bypass_the_index_are_not_sampled(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(50, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="flat")
    write_snapshot(tmp_path, documents_of(vectors), collection="graph", factory="HNSW8")
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always)
        flat, graph = collections.in_force
        query = c.Query(vector=vectors[0])
        monitor.observe(await searched(flat, query))
        monitor.observe(await searched(graph, query, c.SearchOptions(exact=True)))
        monitor.observe((await searched(graph, query))._replace(batch=None))
        never = RecallMonitor(collections, lambda served, arm: 0.0)
        never.observe(await searched(graph, query))
        assert await monitor.check_batch() == await never.check_batch() == 0
        monitor.observe(await searched(graph, query))
        assert await monitor.check_batch() == 1


async def test_a_search_by_example_is_rerun_without_its_example(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(400, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="examples", factory="HNSW16")
    told: list[float] = []
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, lambda name, arm, value: told.append(value))
        (served,) = collections.in_force
        for query in (c.Query(item_ids=("d00007",)), c.Query(vector=vectors[9])):
            monitor.observe(await searched(served, query, c.SearchOptions(ef_search=400)))
        assert await monitor.check_batch() == 2
    assert told == [1.0, 1.0]


async def test_recall_is_labelled_by_filter_shape(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(300, DIM)).astype(np.float32)
    _write_halves(tmp_path, "shaped", "HNSW8", vectors)
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always)
        (served,) = collections.in_force
        for options in (c.SearchOptions(), c.SearchOptions(filter=Equals("part", 1))):
            monitor.observe(await searched(served, c.Query(vector=vectors[5]), options))
        assert [await monitor.check_batch() for _ in range(3)] == [1, 1, 0]
    count = "nearline_retrieval_online_recall_count"
    for shape in ("none", "eq"):
        assert metric(count, collection="shaped", arm="", filter=shape) == 1


async def test_the_dense_leg_of_a_hybrid_search_keeps_its_width(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    words = [f"w{n}" for n in range(40)]
    embedder = WordEmbedder(DIM)
    texts = [" ".join(rng.choice(words, 4)) for _ in range(600)]
    vectors = (await embedder.embed(texts)).vectors
    documents = [
        Document(id=f"d{n:04d}", vectors=vectors[n : n + 1], text=texts[n], bounds=[(0, 9)])
        for n in range(600)
    ]
    write_snapshot(
        tmp_path,
        documents,
        collection="hybrid",
        factory="HNSW4",
        ef_search=10,
        language="english",
    )
    told: list[float] = []
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, lambda name, arm, value: told.append(value))
        (served,) = collections.in_force
        one = await searched(served, c.Query(text=texts[3]), embedder=embedder)
        assert one.batch is not None and one.batch.mode is c.SearchMode.HYBRID
        monitor.observe(one)
        assert await monitor.check_batch() == 1
        vector = one.batch.queries.vectors
        leg = QueryBatch(c.SearchMode.DENSE, [0], ShardQueries(vector))
        wide = c.SearchOptions(k=served.fusion.candidates)
        (found,) = (await search(served, leg, wide, RequestContext())).lists
    exact = np.argsort(-(vectors @ vector[0]), kind="stable")[:10]
    edge = (vectors @ vector[0])[exact[-1]]
    assert told == [sum(hit.score >= edge - 1e-5 for hit in found[:10]) / 10]


async def test_incomparable_searches_are_counted_and_skipped(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.normal(size=(80, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="odd", factory="HNSW8", shards=2)
    monkeypatch.setattr("retrieval.monitoring.exact_rerun._TIMEOUT_S", 0.05)
    skipped = "nearline_retrieval_recall_skipped_total"
    told: list[float] = []
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, lambda name, arm, value: told.append(value))
        (served,) = collections.in_force
        one = await searched(served, c.Query(vector=vectors[0]))
        served.shards = (served.shards[0], SilentShard())
        monitor.observe(one)
        assert await monitor.check_batch() == 0
        assert metric(skipped, collection="odd", reason="partial") == 1
        collections.loaded._snapshots.clear()
        monitor.observe(one)
        assert await monitor.check_batch() == 0
        assert metric(skipped, collection="odd", reason="gone") == 1
        for _ in range(600):
            monitor.observe(one)
        assert metric(skipped, collection="odd", reason="full") == 600 - 512
    assert told == []


async def test_pending_searches_are_rerun_in_the_background(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.normal(size=(80, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="running", factory="HNSW8")
    monkeypatch.setattr("retrieval.monitoring.recall._GATHER_S", 0.0)
    done = asyncio.Event()
    told: list[float] = []

    def tell(name: str, arm: c.Arm | None, value: float) -> None:
        told.append(value)
        if len(told) == 21:
            done.set()

    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, tell)
        monitor.start()
        (served,) = collections.in_force
        one = await searched(served, c.Query(vector=vectors[0]))
        for _ in range(20):
            monitor.observe(one)
        monitor.observe(one._replace(options=replace(one.options, ef_search=80)))
        async with asyncio.timeout(10):
            await done.wait()
        await monitor.close()
    assert len(told) == 21


async def test_frequent_options_do_not_starve_others(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(80, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="turns", factory="HNSW8")
    now = 0.0
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, clock=lambda: now)
        (served,) = collections.in_force
        one = await searched(served, c.Query(vector=vectors[0]))
        rare = one._replace(options=replace(one.options, ef_search=80))
        for _ in range(10):
            monitor.observe(one)
        now = 1.0
        monitor.observe(rare)
        # Neither has waited as long as it should for others, but the ten began before the one.
        assert [await monitor.check_batch() for _ in range(2)] == [4, 4]
        now = 10.0
        monitor.observe(rare._replace(arm=c.Arm.CANARY))
        assert [await monitor.check_batch() for _ in range(4)] == [2, 1, 1, 0]


@pytest.mark.parametrize(
    "options",
    [
        c.SearchOptions(k=9),
        c.SearchOptions(min_score=0.9),
        c.SearchOptions(diversity=0.5),
        c.SearchOptions(grouping=c.Grouping("part")),
    ],
)
async def test_cut_or_reordered_answers_are_searched_again(
    tmp_path: Path,
    rng: np.random.Generator,
    options: c.SearchOptions,
) -> None:
    vectors = rng.normal(size=(300, DIM)).astype(np.float32)
    _write_halves(tmp_path, "cut", "HNSW16", vectors)
    told: list[float] = []
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, lambda name, arm, value: told.append(value))
        (served,) = collections.in_force
        wide = replace(options, ef_search=300)
        monitor.observe(await searched(served, c.Query(vector=vectors[5]), wide))
        assert await monitor.check_batch() == 1
    # A graph searched so widely misses nothing; its answer shows fewer, or others.
    assert told == [1.0]


async def test_a_snapshot_stays_loaded_during_a_rerun(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.normal(size=(80, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="held", factory="HNSW8")
    used: list[tuple[bool, int, bool]] = []
    async with served_collections(tmp_path) as collections:
        (held,) = collections.loaded.all
        # Of fewer than ten hits nothing is known of the others.
        one = await searched(held.value, c.Query(vector=vectors[0]), c.SearchOptions(k=5))

        async def spy(
            served: ServedCollection,
            asked: QueryBatch,
            options: c.SearchOptions,
            inquiry: RequestContext,
        ) -> BatchResult:
            used.append((held.in_use, asked.queries.count, options.exact))
            return await search(served, asked, options, inquiry)

        monkeypatch.setattr("retrieval.search.executor.search", spy)
        monitor = RecallMonitor(collections, _always)
        for _ in range(4):
            monitor.observe(one)
        assert await monitor.check_batch() == 4
        assert not held.in_use
    assert used == [(True, 4, True), (True, 4, False)]


async def test_the_mean_of_an_idle_arm_is_removed(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(80, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="ended", factory="HNSW8")
    now = 0.0
    async with served_collections(tmp_path) as collections:
        monitor = RecallMonitor(collections, _always, clock=lambda: now)
        (served,) = collections.in_force
        one = await searched(served, c.Query(vector=vectors[0]))
        for arm in (c.Arm.CURRENT, c.Arm.CANARY):
            monitor.observe(one._replace(arm=arm))
            assert await monitor.check_batch() == 1
        mean = "nearline_retrieval_online_recall_mean"
        assert metric(mean, collection="ended", arm="canary") > 0
        for now in (299.0, 301.0):
            monitor.observe(one)
            assert await monitor.check_batch() == 1
            assert (metric(mean, collection="ended", arm="canary") > 0) == (now < 300)
        assert metric(mean, collection="ended", arm="") > 0


def test_waiting_behind_requests_costs_no_core_seconds() -> None:
    numbers = 50_000 * 384
    # 16 searches through as many numbers are 39 ms of arithmetic.
    assert core_seconds(0.230, 16, numbers) == pytest.approx(16 * (0.0005 + 0.00192))
    # What takes less costs no more.
    assert core_seconds(0.010, 16, numbers) == 0.010
    # What compared nothing may have been work all the same.
    assert core_seconds(0.5, 0, numbers) == 0.5
