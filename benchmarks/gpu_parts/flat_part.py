"""Exact search on the GPU: over gRPC, with a filter, on the device alone, and by FAISS."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.baselines.baseline_faiss_gpu import faiss_flat
from benchmarks.baselines.processes import single_process_pool
from benchmarks.gpu_parts.callers import Callers, Load
from benchmarks.gpu_parts.device_alone import search_alone
from benchmarks.gpu_parts.figures import Figure
from benchmarks.gpu_parts.flat_snapshot import (
    ATTRIBUTE,
    COLLECTION,
    FlatSnapshot,
    exact_results,
    write_flat_snapshot,
)
from benchmarks.gpu_parts.random_data import unit_vectors
from benchmarks.gpu_parts.session import DIM, K, Session, metric_total
from index_builder.indexes.exact_search import ExactResults, recall_of
from nearline import contract as c, wire
from nearline.errors import NotReady
from nearline.filter_text import parse_filter
from nearline.v1 import retrieval_pb2
from nearline.vectors import pack
from nearline_cli.local.processes import RETRIEVAL_SERVICES, ServiceProcess, free_port
from nearline_cli.sizing.flat_search import arithmetic_seconds, flat_bytes, scan_seconds

_METHOD = "/nearline.v1.RetrievalService/SearchBatch"
_BATCHES = "nearline_retrieval_gpu_batch_queries"
_REQUESTS = 24
_VALUE = 3
_OPTIONS = c.SearchOptions(k=K, payload=frozenset())
# The scan writes a score as fp16 and reads it once, to find the best of each group.
_SCORE_BYTES = 2 + 2


class _Round(NamedTuple):
    """A measured load.

    batch: Queries of a call of the device, on average. cores: Those that the
    router and its workers kept busy.
    """

    qps: float
    batch: float
    cores: float
    load: Load


async def measure_flat(session: Session) -> list[Figure]:
    """Measures 1M vectors, with and without a filter."""
    return await _measure(session, session.sizes.rows, 20_000, filtered=True)


async def measure_large_flat(session: Session) -> list[Figure]:
    """Measures 10M vectors."""
    return await _measure(session, session.sizes.large_rows, 8_000, filtered=False)


def scan_limit(session: Session, rows: int, batch: float) -> float:
    """Returns the queries per second that the card allows for batches of this size.

    Source: roofline model: a batch reads all vectors once; a score is written and read as fp16.
    """
    memory_s = (flat_bytes(rows, DIM) + _SCORE_BYTES * rows * batch) / session.card.bandwidth
    return batch / max(memory_s, arithmetic_seconds(rows, DIM, round(batch), session.card))


async def _measure(session: Session, rows: int, bar: float, *, filtered: bool) -> list[Figure]:
    loop = asyncio.get_running_loop()
    store = session.folder / f"flat-{rows}"
    queries = unit_vectors(_REQUESTS * session.sizes.batch, DIM, session.seed)
    # Those of the first request.
    sample = queries[: session.sizes.batch]
    try:
        # A process of its own returns the memory of the scan.
        with single_process_pool() as data:
            snapshot = await loop.run_in_executor(
                data, write_flat_snapshot, store, rows, DIM, session.seed
            )
            exact = await loop.run_in_executor(data, exact_results, snapshot, sample, K)
            within = exact
            if filtered:
                within = await loop.run_in_executor(
                    data, exact_results, snapshot, sample, K, _VALUE
                )
        figures = await _over_grpc(session, snapshot, queries, bar, exact, within, filtered)
        figures += await _alone(session, snapshot, queries, exact)
        figures += await _by_faiss(session, snapshot, queries, exact)
        return figures
    finally:
        shutil.rmtree(store, ignore_errors=True)


# --- over gRPC -------------------------------------------------------------------------------


async def _over_grpc(
    session: Session,
    snapshot: FlatSnapshot,
    queries: NDArray[np.float32],
    bar: float,
    exact: ExactResults,
    within: ExactResults,
    filtered: bool,
) -> list[Figure]:
    vectors = snapshot.vectors()
    async with (
        Callers(session.sizes.processes) as callers,
        _router(session, snapshot) as router,
    ):
        searches = _Searches(session, callers, *router, queries)
        # Proves that a GPU answers; and warms up.
        await searches.run(_OPTIONS, 1.0)
        plain = await searches.run(_OPTIONS, session.sizes.seconds)
        proven = await searches.run(_exact(), session.sizes.seconds / 2)
        some = await searches.run(_filtered(), session.sizes.seconds / 2) if filtered else None
    figures = [
        Figure(
            name="queries over gRPC",
            value=plain.qps,
            unit="queries/s",
            bar=bar,
            limit=scan_limit(session, snapshot.rows, plain.batch),
            limited_by="bandwidth",
            note=_about(plain),
        ),
        Figure(name="recall@10", value=_recall(plain, exact, vectors), bar=1.0),
        Figure(
            name="queries over gRPC, exact: true",
            value=proven.qps,
            unit="queries/s",
            limit=scan_limit(session, snapshot.rows, proven.batch),
            limited_by="bandwidth",
            note=_about(proven),
        ),
        Figure(name="recall@10, exact: true", value=_recall(proven, exact, vectors), bar=1.0),
    ]
    if some is not None:
        figures += [
            Figure(
                name="filter on 5 % of the rows, times unfiltered",
                value=some.qps / plain.qps,
                bar=0.3,
                note=f"{some.qps:,.0f} queries/s; {_about(some)}",
            ),
            Figure(
                name="filter on 5 % of the rows, recall@10",
                value=_recall(some, within, vectors),
                bar=1.0,
            ),
        ]
    return figures


class _Searches(NamedTuple):
    session: Session
    callers: Callers
    router: ServiceProcess
    metrics_port: int
    queries: NDArray[np.float32]

    async def run(self, options: c.SearchOptions, seconds: float) -> _Round:
        """Searches in a closed loop. Raises NotReady: the CPU answered."""
        batch = self.session.sizes.batch
        message = wire.options_to_proto(options)
        requests = [
            retrieval_pb2.SearchBatchRequest(
                collection=COLLECTION,
                queries=[
                    retrieval_pb2.Query(vector=pack(row)) for row in self.queries[at : at + batch]
                ],
                options=message,
            ).SerializeToString()
            for at in range(0, len(self.queries), batch)
        ]
        before = await self._spent()
        load = await self.callers.closed_loop(
            self.router.address, _METHOD, requests, self.session.sizes.in_flight, seconds
        )
        calls, asked, cpu_s, clock_s = (
            now - was for now, was in zip(await self._spent(), before, strict=True)
        )
        for reply in load.replies.values():
            info = retrieval_pb2.SearchBatchResponse.FromString(reply).info
            if info.served_by.reason or (options.exact and not info.cost.gpu):
                raise NotReady(
                    f"the CPU answered in place of the GPU: {info.served_by.reason or 'no reason'};"
                    " see nearline doctor"
                )
        if not calls:
            raise NotReady("no search reached the GPU; see nearline doctor")
        return _Round(load.per_s * batch, asked / calls, cpu_s / clock_s, load)

    async def _spent(self) -> tuple[float, float, float, float]:
        """Returns the calls of the device, their queries, and seconds of CPU and of the clock."""
        calls = await asyncio.to_thread(metric_total, self.metrics_port, f"{_BATCHES}_count")
        asked = await asyncio.to_thread(metric_total, self.metrics_port, f"{_BATCHES}_sum")
        main = psutil.Process(self.router.pid)
        times = [one.cpu_times() for one in (main, *main.children(recursive=True))]
        cpu_s = sum(one.user + one.system for one in times)
        return calls, asked, cpu_s, asyncio.get_running_loop().time()


@asynccontextmanager
async def _router(
    session: Session, snapshot: FlatSnapshot
) -> AsyncIterator[tuple[ServiceProcess, int]]:
    port = free_port()
    arguments = ["--store", str(snapshot.store), "--metrics-port", str(port)]
    # The default allows 200 queries of a request over ten million vectors.
    arguments += ["--max-comparisons", str(10**12)]
    async with session.service("retrieval", arguments, RETRIEVAL_SERVICES) as router:
        yield router, port


def _exact() -> c.SearchOptions:
    return c.SearchOptions(k=K, payload=frozenset(), exact=True)


def _filtered() -> c.SearchOptions:
    condition = parse_filter(f"{ATTRIBUTE} = {_VALUE}")
    return c.SearchOptions(k=K, payload=frozenset(), filter=condition)


def _recall(found: _Round, exact: ExactResults, vectors: NDArray[np.float32]) -> float:
    """Returns the recall of the first request."""
    lists = retrieval_pb2.SearchBatchResponse.FromString(found.load.replies[0]).results
    rows = np.full(exact.rows.shape, -1, np.int64)
    scores = np.full(exact.rows.shape, -np.inf, np.float32)
    for number, one in enumerate(lists):
        rows[number, : len(one.hits)] = [int(hit.id) for hit in one.hits]
        scores[number, : len(one.hits)] = [hit.score for hit in one.hits]
    return recall_of(exact, vectors, rows, scores)


def _about(found: _Round) -> str:
    return (
        f"{found.batch:.0f} queries a call of the GPU, p99 {found.load.percentile_ms(99):.0f} ms a "
        f"request, {found.cores:.1f} cores of the router"
    )


# --- without gRPC ----------------------------------------------------------------------------


async def _alone(
    session: Session,
    snapshot: FlatSnapshot,
    queries: NDArray[np.float32],
    exact: ExactResults,
) -> list[Figure]:
    batch = session.sizes.batch
    with single_process_pool() as pool:
        found = await asyncio.get_running_loop().run_in_executor(
            pool, search_alone, snapshot, session.device, queries, batch, session.sizes.seconds / 3
        )
    limit = scan_limit(session, snapshot.rows, found.batch)
    together = f"{found.batch:.0f} queries a call"
    return [
        Figure(
            name="the device alone: candidates",
            value=found.scan_qps,
            unit="queries/s",
            limit=limit,
            limited_by="bandwidth",
            note=f"{together}; the worker process without router and gRPC",
        ),
        Figure(
            name="the device alone: proven results",
            value=found.qps,
            unit="queries/s",
            limit=limit,
            limited_by="bandwidth",
            note="with scores by the CPU",
        ),
        Figure(
            name="the device alone: recall@10",
            value=recall_of(exact, snapshot.vectors(), found.rows, found.scores),
            bar=1.0,
        ),
    ]


async def _by_faiss(
    session: Session,
    snapshot: FlatSnapshot,
    queries: NDArray[np.float32],
    exact: ExactResults,
) -> list[Figure]:
    name, batch = "FAISS GpuIndexFlat fp16, as a peer", 4 * session.sizes.batch
    with single_process_pool() as pool:
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                pool, faiss_flat, snapshot.vectors, queries, K, batch, session.sizes.seconds / 3
            )
        except Exception as error:
            # FAISS ends its process if the GPU fails.
            return [Figure(name=name, value=None, note=f"{type(error).__name__}: {error}")]
    if isinstance(found, str):
        return [Figure(name=name, value=None, note=found)]
    rows, scores, qps = found
    sample = len(exact.queries)
    recall = recall_of(exact, snapshot.vectors(), rows[:sample], scores[:sample])
    seconds = scan_seconds(snapshot.rows, DIM, batch, session.card)
    return [
        Figure(
            name=name,
            value=qps,
            unit="queries/s",
            limit=batch / seconds,
            limited_by="bandwidth",
            note=f"{batch} queries a call, recall@10 {recall:.4f}",
        )
    ]
