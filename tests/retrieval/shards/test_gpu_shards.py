"""Searches of shards whose vectors are in a process for a GPU, which computes on the CPU here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.serving import Registration, running
from nearline.store.snapshot import Store
from nearline.v1 import retrieval_pb2_grpc
from retrieval.embedders.endpoints import Embedders
from retrieval.index import legs
from retrieval.index.filtering.planner import Matches
from retrieval.index.gpu.device import GpuDevice
from retrieval.index.gpu.gpu_pool import GpuPool
from retrieval.protocols.shard import Shard, ShardOptions, ShardQueries
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.router.service import RetrievalService
from retrieval.router.servicer import RetrievalServicer
from retrieval.search.collection import ServedCollection
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.local_shard import LocalShard
from retrieval.shards.replicas.remote_provider import RemoteShardProvider
from retrieval.shards.shard_host import ShardHost
from tests.retrieval.index.gpu.devices import (
    NEVER,
    SOON,
    cpu_device,
    torch_device,
    wait_for_recovery,
)
from tests.retrieval.service_modes import shard_registration
from tests.retrieval.small_snapshots import documents_of, write_snapshot

_ROWS, _DIM = 600, 16


@pytest.fixture
def vectors(rng: np.random.Generator) -> NDArray[np.float32]:
    drawn = rng.normal(size=(_ROWS, _DIM)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


@pytest.fixture
def store(tmp_path: Path, vectors: NDArray[np.float32]) -> Path:
    write_snapshot(tmp_path, documents_of(vectors), factory="HNSW8,Flat", metric="cosine")
    return tmp_path


@contextlib.asynccontextmanager
async def served(
    store: Path, device: GpuDevice, *, apart: bool = False
) -> AsyncIterator[RetrievalClient]:
    """Serves the collection of a store over gRPC; apart: with its shard on another server."""
    async with contextlib.AsyncExitStack() as stack:
        local = LocalShardProvider(Store(store), 2, gpus=GpuPool([device]))
        stack.push_async_callback(local.close)
        (snapshot,) = read_current_snapshots(Store(store), ())
        shards: Sequence[Shard] = await local.prepare(snapshot)
        if apart:
            host = ShardHost(Store(store), local)
            stack.push_async_callback(host.close)
            await host.start()
            address = await stack.enter_async_context(running([shard_registration(host)]))
            hosting = RemoteShardProvider({0: (address,)}, 10.0)
            stack.push_async_callback(hosting.close)
            shards = await hosting.prepare(snapshot)
        service = RetrievalService(Embedders({}))
        service.serve(ServedCollection(snapshot, shards))
        registration = Registration(
            "nearline.v1.RetrievalService",
            lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(
                RetrievalServicer(service), server
            ),
        )
        address = await stack.enter_async_context(running([registration]))
        yield await stack.enter_async_context(RetrievalClient(address))


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int) -> list[str]:
    return [f"d{row:05d}" for row in np.argsort(-(vectors @ query), kind="stable")[:k]]


@pytest.mark.parametrize("apart", [False, True])
async def test_a_dead_gpu_fails_no_search_and_the_reply_says_why(
    store: Path, vectors: NDArray[np.float32], rng: np.random.Generator, apart: bool
) -> None:
    device = await asyncio.to_thread(cpu_device, pauses=NEVER)
    query = rng.normal(size=_DIM).astype(np.float32)
    exact = c.SearchOptions(k=5, exact=True)
    async with served(store, device, apart=apart) as client:
        reply = await client.search(c.Query(vector=query), exact)
        assert reply.info.served_by == c.ServedBy()
        assert reply.info.cost is not None and reply.info.cost.gpu
        assert reply.info.cost.comparisons == _ROWS
        assert device.pid is not None
        os.kill(device.pid, signal.SIGKILL)
        for options in (exact, c.SearchOptions(k=5), exact):
            reply = await client.search(c.Query(vector=query), options)
            assert [hit.id for hit in reply.hits] == nearest(vectors, query, 5)
            assert reply.info.served_by == c.ServedBy(
                source=c.Source.FALLBACK,
                rung="cpu",
                reason="shard 0: GPU cpu: its process was ended by signal 9 (SIGKILL)",
            )
        assert reply.info.cost is not None and not reply.info.cost.gpu
        assert reply.info.cost.comparisons == _ROWS and reply.info.cost.compute_s > 0


async def test_searches_go_on_while_a_gpu_dies_and_comes_back(
    store: Path, vectors: NDArray[np.float32]
) -> None:
    device = await asyncio.to_thread(cpu_device, pauses=SOON)
    async with served(store, device) as client:
        reasons: set[str] = set()
        stop = asyncio.Event()

        async def search(first: int) -> int:
            count = 0
            while not stop.is_set():
                row = (first + 7 * count) % _ROWS
                reply = await client.search(c.Query(vector=vectors[row]), c.SearchOptions(k=3))
                assert reply.hits[0].id == f"d{row:05d}"
                reasons.add(reply.info.served_by.reason)
                count += 1
            return count

        callers = [asyncio.create_task(search(first)) for first in range(4)]
        for _ in range(2):
            pid = device.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(wait_for_recovery, device, pid)
        stop.set()
        assert all(await asyncio.gather(*callers))
        last = await client.search(c.Query(vector=vectors[0]), c.SearchOptions(exact=True))
    assert last.info.cost is not None and last.info.cost.gpu
    assert "shard 0: GPU cpu: its process was ended by signal 9 (SIGKILL)" in reasons


async def test_the_real_worker_answers_over_grpc(store: Path, vectors: NDArray[np.float32]) -> None:
    async with served(store, await asyncio.to_thread(torch_device)) as client:
        reply = await client.search(c.Query(vector=vectors[7]), c.SearchOptions(k=5, exact=True))
        assert [hit.id for hit in reply.hits] == nearest(vectors, vectors[7], 5)
        assert reply.info.cost is not None and reply.info.cost.gpu


async def test_a_fallback_of_some_queries_is_told(
    store: Path, vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await asyncio.to_thread(cpu_device, pauses=NEVER)
    async with served(store, device) as client:
        submit, calls = device.submit, itertools.count()

        def failing(*arguments: object) -> object:
            if next(calls) == 1:
                device.fail("it was tested")
            return submit(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(device, "submit", failing)
        # More queries than share a call of a shard.
        queries = [c.Query(vector=vector) for vector in vectors[:130]]
        reply = await client.search_batch(queries, c.SearchOptions(k=3, exact=True))
        assert [found.hits[0].id for found in reply.results] == [
            f"d{row:05d}" for row in range(130)
        ]
        assert reply.info.served_by.reason == "shard 0: GPU cpu: it was tested"
        assert reply.info.cost is not None and not reply.info.cost.gpu
        assert reply.info.cost.comparisons == 130 * _ROWS


async def test_widths_of_the_index_are_searched_on_the_cpu(
    store: Path, vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await asyncio.to_thread(cpu_device)
    async with served(store, device) as client:
        submitted: list[int] = []
        submit = device.submit

        def counted(*arguments: object) -> object:
            submitted.append(1)
            return submit(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(device, "submit", counted)
        query = c.Query(vector=vectors[0])
        await client.search(query, c.SearchOptions(ef_search=20))
        assert not submitted
        reply = await client.search(query, c.SearchOptions())
        assert submitted and reply.info.cost is None


@pytest.mark.parametrize("share", [0.97, 0.1, 0.0])
async def test_hidden_rows_are_not_found(
    store: Path,
    vectors: NDArray[np.float32],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
) -> None:
    monkeypatch.setattr(legs, "_FEW_MATCHES", 0)
    device = await asyncio.to_thread(cpu_device)
    local = LocalShardProvider(Store(store), 1, gpus=GpuPool([device]))
    (snapshot,) = read_current_snapshots(Store(store), ())
    (shard,) = await local.prepare(snapshot)
    assert isinstance(shard, LocalShard)
    kept = rng.random(_ROWS) < share
    alive = Matches(kept, kept, np.packbits(kept, bitorder="little"), int(kept.sum()))
    for exact in (True, False):
        results = shard.base.search(ShardQueries(vectors[:20]), ShardOptions(8, exact=exact), alive)
        for query, hits in zip(vectors[:20], results, strict=True):
            scores = np.where(kept, vectors @ query, -np.inf)
            best = np.argsort(-scores, kind="stable")[: min(8, alive.count)]
            assert list(hits.ids) == [f"d{row:05d}" for row in best]
            assert not exact or (hits.cost is not None and hits.cost.comparisons == alive.count)
    await local.close()


async def test_exact_searches_wait_for_scans_only_while_the_gpu_is_away(store: Path) -> None:
    device = await asyncio.to_thread(cpu_device, pauses=NEVER)
    local = LocalShardProvider(Store(store), 1, gpus=GpuPool([device]))
    (snapshot,) = read_current_snapshots(Store(store), ())
    (shard,) = await local.prepare(snapshot)
    assert isinstance(shard, LocalShard)
    scanning, query = threading.Event(), ShardQueries(np.ones((1, _DIM), np.float32))
    shard._scanners.start(partial(_wait, scanning))
    exact = ShardOptions(3, exact=True)
    (hits,) = await shard.search(snapshot.snapshot_id, query, exact)
    assert hits.cost is not None and hits.cost.gpu
    # Else the thread of this search might take the next one, too.
    await shard._threads.settled()
    device.fail("it was tested")
    waiting = shard.search(snapshot.snapshot_id, query, exact)
    await shard.search(snapshot.snapshot_id, query, ShardOptions(3))
    assert not waiting.done()
    scanning.set()
    (same,) = await waiting
    assert same.ids == hits.ids and same.fallback == "GPU cpu: it was tested"
    await local.close()


def _wait(scanning: threading.Event) -> None:
    assert scanning.wait(30)
