"""Short rounds of the router and of baselines in turn, for their ratios."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.baselines.baseline_faiss import faiss_round
from benchmarks.baselines.processes import (
    cpu_seconds,
    floor_process,
    minimal_server,
    router_process,
    run_in,
    single_process_pool,
)
from benchmarks.workloads import closed_loop, list_requests
from benchmarks.workloads.closed_loop import (
    SearchTask,
    batch_requests,
    exact_answers,
    search_requests,
)
from benchmarks.workloads.list_catalogue import Catalogue, build_catalogue
from benchmarks.workloads.prepared_calls import CallResults, call_closed_loop, call_each
from benchmarks.workloads.vector_layouts import VectorLayout, prepare_layout
from nearline_cli.local.processes import redis_process

_CALLERS, _BATCH_CALLERS, _BATCH = 8, 4, 32
_WARM_UP_S = 0.5


class DriftSizes(NamedTuple):
    """Sizes of the made-up data, rounds, and seconds of a round of each server."""

    vectors: int = 10_000
    dim: int = 384
    ef: int = 64
    items: int = 5_000
    users: int = 2_000
    rounds: int = 5
    seconds: float = 0.7


class _Side(NamedTuple):
    """A server and its calls, or FAISS in process.

    each: Queries of a call. pid: Of the process whose CPU counts.
    """

    address: str
    pid: int
    method: str
    requests: Sequence[bytes]
    callers: int = _CALLERS
    each: int = 1


class _Turn(NamedTuple):
    """A round: queries per second, p99 in seconds, and seconds of CPU of a query."""

    qps: float
    p99_s: float
    cpu_s: float


async def measure_ratios(work: Path, sizes: DriftSizes, enough_s: float) -> dict[str, list[float]]:
    """Measures in an empty folder; returns the ratios of each round, by name.

    Args:
        work: The folder.
        sizes: What is measured.
        enough_s: After this many seconds, no further round begins; there is always one.
    """
    end = time.monotonic() + enough_s
    ratios: dict[str, list[float]] = defaultdict(list)
    with single_process_pool() as builder:
        task: SearchTask = await run_in(builder, _build, work, sizes)
    async with contextlib.AsyncExitStack() as stack:
        raw_process = stack.enter_context(single_process_pool())
        caller = stack.enter_context(single_process_pool())
        sides = await stack.enter_async_context(_servers(work, task, sizes, caller))
        for number in range(sizes.rounds + 1):
            # The first round warms up, and does not count.
            seconds = sizes.seconds if number else _WARM_UP_S
            raw_qps: float = await run_in(raw_process, faiss_round, task, seconds)
            turns = {name: await _turn(caller, side, seconds) for name, side in sides.items()}
            if number:
                for name, value in _ratios(raw_qps, turns).items():
                    ratios[name].append(value)
                if time.monotonic() > end:
                    break
    return dict(ratios)


def _ratios(raw_qps: float, turns: Mapping[str, _Turn]) -> dict[str, float]:
    """Returns the ratios of a round, with the names of `RATIOS`."""
    search, floor, hot, echo = (turns[name] for name in ("search", "floor", "hot", "echo"))
    return {
        "search_cpu_to_floor": search.cpu_s / floor.cpu_s,
        "search_to_floor": search.qps / floor.qps,
        "batch_to_raw": turns["batch"].qps / raw_qps,
        "list_cpu_to_echo": hot.cpu_s / echo.cpu_s,
        "list_p99_to_echo": hot.p99_s / echo.p99_s,
        "floor_to_raw": floor.qps / raw_qps,
    }


async def _turn(caller: ProcessPoolExecutor, side: _Side, seconds: float) -> _Turn:
    before_s = cpu_seconds([side.pid])
    calls: CallResults = await run_in(
        caller, call_closed_loop, side.address, side.method, side.requests, side.callers, seconds
    )
    spent_s = cpu_seconds([side.pid]) - before_s
    queries = len(calls.replies) * side.each
    p99_s = float(np.percentile(calls.latencies_s, 99))
    return _Turn(calls.qps * side.each, p99_s, spent_s / queries)


def _build(work: Path, sizes: DriftSizes) -> SearchTask:
    catalogue = Catalogue(sizes.items, sizes.users, 10, 1, 0)
    asyncio.run(build_catalogue(work / "lists", catalogue, int(time.time())))
    layout = VectorLayout(sizes.vectors, sizes.dim, "HNSW32,Flat", 1, 200)
    threads = len(os.sched_getaffinity(0))
    return prepare_layout(work, layout)._replace(ef=sizes.ef, concurrency=_CALLERS, threads=threads)


@contextlib.asynccontextmanager
async def _servers(
    work: Path, task: SearchTask, sizes: DriftSizes, caller: ProcessPoolExecutor
) -> AsyncIterator[dict[str, _Side]]:
    """Runs the servers for the duration of the block; yields them by name."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        floor = await enter(floor_process(task))
        echo = await enter(minimal_server("benchmarks.baselines.echo_server"))
        url = await enter(redis_process(work / "redis"))
        search = await enter(router_process(("--store", str(task.store)), 0))
        lists = await enter(router_process(("--store", str(work / "lists"), "--redis", url), 0))
        hot = await _hot_requests(lists.address, sizes)
        await run_in(caller, call_each, lists.address, list_requests.METHOD, hot, _CALLERS)
        queries = exact_answers(task)["queries"]
        searches = search_requests(task, queries)
        yield {
            "floor": _Side(*floor, closed_loop.METHOD, searches),
            "search": _Side(search.address, search.pids[-1], closed_loop.METHOD, searches),
            "batch": _Side(
                *(search.address, search.pids[-1], closed_loop.BATCH_METHOD),
                *(batch_requests(task._replace(batch=_BATCH), queries), _BATCH_CALLERS, _BATCH),
            ),
            "echo": _Side(*echo, list_requests.METHOD, hot),
            "hot": _Side(lists.address, lists.pids[-1], list_requests.METHOD, hot),
        }


async def _hot_requests(address: str, sizes: DriftSizes) -> list[bytes]:
    rng = np.random.default_rng(0)
    wanted = list_requests.ListRequests(
        rng, items=sizes.items, users=sizes.users, surface=list_requests.ITEM_PAGE, n=20, count=1
    )
    now_s = int(time.time())
    await list_requests.record_recent(address, rng, wanted.users, sizes.items, now_s)
    # As many as are called in a round.
    return wanted.hot[:2_000]
