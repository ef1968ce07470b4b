"""Exact search on the GPU: over gRPC, with a filter, on the device alone, and by FAISS."""

from __future__ import annotations

import asyncio
import shutil

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.baseline_faiss_gpu import faiss_flat
from benchmarks.baselines.processes import single_process_pool
from benchmarks.gpu_parts.callers import Callers
from benchmarks.gpu_parts.device_alone import search_alone
from benchmarks.gpu_parts.figures import Figure
from benchmarks.gpu_parts.flat_snapshot import (
    ATTRIBUTE,
    FlatSnapshot,
    exact_results,
    write_flat_snapshot,
)
from benchmarks.gpu_parts.random_data import unit_vectors
from benchmarks.gpu_parts.search_load import OPTIONS, RouterLoad, running_routers
from benchmarks.gpu_parts.session import DIM, K, Session
from index_builder.indexes.exact_search import ExactResults, recall_of
from index_builder.indexes.faiss_writer import HAS_GPU_SUPPORT
from nearline import contract as c
from nearline.filter_text import parse_filter
from nearline.v1 import retrieval_pb2
from nearline_cli.sizing.flat_search import arithmetic_seconds, flat_bytes, scan_seconds

_REQUESTS = 24
_VALUE = 3
# The scan writes a score as fp16 and reads it once, to find the best of each group.
_SCORE_BYTES = 2 + 2


async def measure_flat(session: Session) -> list[Figure]:
    """Measures 1M vectors, also with a filter, and with several routers."""
    return await _measure(session, session.sizes.rows, 20_000, more=True)


async def measure_large_flat(session: Session) -> list[Figure]:
    """Measures 10M vectors."""
    return await _measure(session, session.sizes.large_rows, 8_000, more=False)


def scan_limit(session: Session, rows: int, batch: float) -> float:
    """Returns the queries per second that the card allows for batches of this size.

    Source: roofline model: a batch reads all vectors once; a score is written and read as fp16.
    """
    memory_s = (flat_bytes(rows, DIM) + _SCORE_BYTES * rows * batch) / session.card.bandwidth
    return batch / max(memory_s, arithmetic_seconds(rows, DIM, round(batch), session.card))


async def _measure(session: Session, rows: int, bar: float, *, more: bool) -> list[Figure]:
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
            if more:
                within = await loop.run_in_executor(
                    data, exact_results, snapshot, sample, K, _VALUE
                )
        figures = await _over_grpc(session, snapshot, queries, bar, exact, within if more else None)
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
    within: ExactResults | None,
) -> list[Figure]:
    """Measures one router; with exact results under a filter, also that and several routers."""
    vectors = snapshot.vectors()
    seconds = session.sizes.seconds
    some = several = None
    async with Callers(session.sizes.processes) as callers:
        async with running_routers(session, snapshot, callers, queries, 1) as searches:
            plain = await searches.run(OPTIONS, seconds)
            proven = await searches.run(_exact(), seconds / 2)
            if within is not None:
                some = await searches.run(_filtered(), seconds / 2)
        if within is not None:
            routers = session.sizes.routers
            async with running_routers(session, snapshot, callers, queries, routers) as searches:
                several = await searches.run(OPTIONS, seconds)
    figures = [
        Figure(
            name="queries over gRPC",
            value=plain.qps,
            unit="queries/s",
            bar=bar,
            limit=scan_limit(session, snapshot.rows, plain.batch),
            limited_by="bandwidth",
            note=plain.about(),
        ),
        Figure(name="recall@10", value=_recall(plain, exact, vectors), bar=1.0),
        Figure(
            name="queries over gRPC, exact: true",
            value=proven.qps,
            unit="queries/s",
            limit=scan_limit(session, snapshot.rows, proven.batch),
            limited_by="bandwidth",
            note=proven.about(),
        ),
        Figure(name="recall@10, exact: true", value=_recall(proven, exact, vectors), bar=1.0),
    ]
    if within is not None and some is not None and several is not None:
        figures += [
            Figure(
                name="queries over gRPC, several routers",
                value=several.qps,
                unit="queries/s",
                limit=scan_limit(session, snapshot.rows, several.batch),
                limited_by="bandwidth",
                note=f"{session.sizes.routers} routers; {several.about()}",
            ),
            Figure(
                name="filter on 5 % of the rows, times unfiltered",
                value=some.qps / plain.qps,
                bar=0.3,
                note=f"{some.qps:,.0f} queries/s; {some.about()}",
            ),
            Figure(
                name="filter on 5 % of the rows, recall@10",
                value=_recall(some, within, vectors),
                bar=1.0,
            ),
        ]
    return figures


def _exact() -> c.SearchOptions:
    return c.SearchOptions(k=K, payload=frozenset(), exact=True)


def _filtered() -> c.SearchOptions:
    condition = parse_filter(f"{ATTRIBUTE} = {_VALUE}")
    return c.SearchOptions(k=K, payload=frozenset(), filter=condition)


def _recall(found: RouterLoad, exact: ExactResults, vectors: NDArray[np.float32]) -> float:
    """Returns the recall of the first request."""
    lists = retrieval_pb2.SearchBatchResponse.FromString(found.load.replies[0]).results
    rows = np.full(exact.rows.shape, -1, np.int64)
    scores = np.full(exact.rows.shape, -np.inf, np.float32)
    for number, one in enumerate(lists):
        rows[number, : len(one.hits)] = [int(hit.id) for hit in one.hits]
        scores[number, : len(one.hits)] = [hit.score for hit in one.hits]
    return recall_of(exact, vectors, rows, scores)


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
    if not HAS_GPU_SUPPORT:
        return [Figure(name=name, value=None, note="FAISS is built for CPUs; install faiss-gpu")]
    with single_process_pool() as pool:
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                pool, faiss_flat, snapshot.vectors, queries, K, batch, session.sizes.seconds / 3
            )
        except Exception as error:
            # FAISS ends its process if the GPU fails.
            return [Figure(name=name, value=None, note=f"{type(error).__name__}: {error}")]
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
