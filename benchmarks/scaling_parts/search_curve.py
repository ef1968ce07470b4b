"""Searches of one layout of vectors by more and more callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.baselines.processes import (
    RunningRouter,
    cpu_seconds,
    resident_bytes,
    router_process,
    run_in,
    single_process_pool,
)
from benchmarks.scaling_parts.measured_rows import SEARCHES, Row
from benchmarks.workloads.closed_loop import (
    METHOD,
    SearchRound,
    SearchTask,
    exact_answers,
    mean_recall,
    run_round,
    search_requests,
)
from benchmarks.workloads.prepared_calls import call_each, percentile_ms
from benchmarks.workloads.retrieval_dataset import WIDTHS
from benchmarks.workloads.vector_layouts import VectorLayout, prepare_layout
from nearline.v1 import retrieval_pb2

EMBEDDED, SEPARATE = "embedded", "separate"
_WARM_UP_S = 1.0


class Turns(NamedTuple):
    """How long a point is measured: rounds, and seconds of each."""

    rounds: int
    seconds: float


def search_subject(layout: VectorLayout, place: str, callers: int) -> Row:
    """Returns what a row is about.

    Args:
        layout: The vectors.
        place: EMBEDDED keeps the shards in the router; SEPARATE gives each a process.
        callers: Number of callers in a closed loop.
    """
    return {
        "kind": SEARCHES,
        "vectors": layout.rows,
        "dim": layout.dim,
        "index": layout.factory,
        "shards": layout.shards,
        "layout": place,
        "callers": callers,
    }


async def search_curve(
    work: Path,
    layout: VectorLayout,
    place: str,
    callers: Sequence[int],
    target_recall: float,
    turns: Turns,
) -> AsyncIterator[Row]:
    """Measures a layout; yields a row for each number of callers.

    `router_us` and `shards_us` are microseconds of CPU a search, of all threads of the processes;
    if the shards are embedded, the router's include theirs. `shards_file_bytes` is the size of the
    indexes, whose pages count as resident once they were read.
    """
    with single_process_pool() as builder:
        task: SearchTask = await run_in(builder, prepare_layout, work, layout)
    apart = layout.shards if place == SEPARATE else 0
    with single_process_pool() as caller:
        async with router_process(("--store", str(task.store)), apart, apart or 1) as router:
            if "HNSW" in layout.factory:
                ef = await run_in(caller, least_width, task, router.address, target_recall)
                task = task._replace(ef=ef)
            for count in callers:
                counted = task._replace(concurrency=count)
                figures = await _measure(caller, counted, router, turns)
                yield {
                    **search_subject(layout, place, count),
                    "ef": task.ef,
                    **figures,
                    "router_rss_bytes": router.router_rss_bytes(),
                    "shards_rss_bytes": resident_bytes(router.pids[:-1]),
                    "shards_file_bytes": index_bytes(task),
                }


async def _measure(
    caller: ProcessPoolExecutor, task: SearchTask, router: RunningRouter, turns: Turns
) -> Row:
    found: list[SearchRound] = []
    router_us: list[float] = []
    shards_us: list[float] = []
    parts = ((router.pids[-1:], router_us), (router.pids[:-1], shards_us))
    for number in range(turns.rounds + 1):
        before = [cpu_seconds(pids) for pids, _ in parts]
        # The first turn warms up, and does not count.
        seconds = turns.seconds if number else _WARM_UP_S
        turn = await run_in(caller, run_round, task, router.address, seconds)
        if number:
            found.append(turn)
            for (pids, spent), start_s in zip(parts, before, strict=True):
                spent.append((cpu_seconds(pids) - start_s) / turn.replies * 1e6)
    return {
        "recall": round(median(turn.recall for turn in found), 4),
        "qps": round(median(turn.qps for turn in found), 1),
        "p50_ms": percentile_ms(found, 50),
        "p99_ms": percentile_ms(found, 99),
        "router_us": round(median(router_us), 1),
        "shards_us": round(median(shards_us), 1),
        "searches": sum(turn.replies for turn in found),
    }


def least_width(task: SearchTask, address: str, target_recall: float) -> int:
    """Returns the smallest width that reaches a recall@10 over gRPC; the largest if none does."""
    low, high = 0, len(WIDTHS) - 1
    while low < high:
        middle = (low + high) // 2
        if served_recall(task._replace(ef=WIDTHS[middle]), address) >= target_recall:
            high = middle
        else:
            low = middle + 1
    return WIDTHS[low]


def served_recall(task: SearchTask, address: str) -> float:
    """Returns the recall of each query, searched once."""
    requests = search_requests(task, exact_answers(task)["queries"])
    calls = call_each(address, METHOD, requests, 4)
    found = [
        (number, [hit.id for hit in retrieval_pb2.SearchResponse.FromString(reply).result.hits])
        for number, reply in calls.replies
    ]
    return mean_recall(task, found)


def index_bytes(task: SearchTask) -> int:
    """Returns the size of the files of vectors, over all shards."""
    return sum(file.stat().st_size for file in task.store.rglob("dense.faiss"))
