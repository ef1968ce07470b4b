"""The monitors of a router, fed by a service."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from nearline.admission import note_overload
from nearline.store.snapshot import Store
from nearline.store.traffic import read_traffic
from retrieval.embedders.endpoints import Embedders
from retrieval.monitors import Monitors
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.rollout.collections import ServedCollections
from retrieval.router.service import RetrievalService
from retrieval.search.collection import ServedCollection
from retrieval.settings import RouterSettings
from retrieval.shards.local_provider import LocalShardProvider
from tests.retrieval.monitoring.monitored_collection import metric, searched
from tests.retrieval.small_snapshots import documents_of, write_snapshot

DIM = 16
ALL = {"recall_sample": 1.0, "record_share": 1.0}


async def test_searches_of_a_service_are_recorded_and_repeated_exactly(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.monitoring.recall._GATHER_S", 0.0)
    vectors = rng.normal(size=(500, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), collection="watched", factory="HNSW16")
    store, done = Store(tmp_path), asyncio.Event()
    told: list[tuple[str, c.Arm | None, float]] = []

    def tell(collection: str, arm: c.Arm | None, value: float) -> None:
        told.append((collection, arm, value))
        if len(told) == 7:
            done.set()

    hosting = LocalShardProvider(store, 2)
    collections = ServedCollections()
    watchers = Monitors(
        RouterSettings.model_validate({"store": str(tmp_path), **ALL}),
        store,
        collections,
        on_recall=tell,
    )
    service = RetrievalService(Embedders({}), collections, observe=watchers.observe)
    for snapshot in read_current_snapshots(store, ()):
        service.serve(ServedCollection(snapshot, await hosting.prepare(snapshot)))
    watchers.start()

    async def search_in_overload() -> None:
        note_overload()
        await service.search(c.Query(vector=vectors[7]), collection="watched")

    # It is neither repeated nor recorded.
    await asyncio.create_task(search_in_overload())
    ids = []
    for vector in vectors[:7]:
        reply = await service.search(c.Query(vector=vector), collection="watched")
        ids.append([hit.id for hit in reply.hits])
    async with asyncio.timeout(20):
        await done.wait()
    await watchers.close()
    await hosting.close()
    assert [list(one.ids) for one in read_traffic(store, "watched", 100)] == ids[::-1]
    assert len(told) == 7
    assert all(name == "watched" and arm is None and value > 0.8 for name, arm, value in told)
    written = "nearline_retrieval_recorded_requests_total"
    assert metric(written, collection="watched", outcome="written") == 7


async def test_a_request_that_is_not_sampled_costs_microseconds(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = rng.normal(size=(50, DIM)).astype(np.float32)
    write_snapshot(tmp_path, documents_of(vectors), factory="HNSW16")
    store = Store(tmp_path)
    hosting = LocalShardProvider(store, 1)
    collections = ServedCollections()
    watchers = Monitors(RouterSettings(), store, collections)
    (snapshot,) = read_current_snapshots(store, ())
    served = ServedCollection(snapshot, await hosting.prepare(snapshot))
    one = await searched(served, c.Query(vector=vectors[0]))
    monkeypatch.setattr("random.random", lambda: 0.999)
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(1_000):
            watchers.observe(one)
        rounds.append(time.perf_counter() - start)
    await hosting.close()
    # Measured at 1.5 us; the machine of a test may be busy.
    assert min(rounds) / 1_000 < 20e-6
