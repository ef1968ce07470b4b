"""`nearline bench search`: speed and recall over gRPC, compared with a minimal server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import tempfile
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.baselines.processes import (
    RunningRouter,
    cpu_seconds,
    floor_process,
    router_process,
    single_process_pool,
)
from benchmarks.workloads.closed_loop import SearchRound, SearchTask, round_figures, run_round
from benchmarks.workloads.prepared_calls import percentile_ms
from benchmarks.workloads.retrieval_dataset import (
    IndexVariant,
    RetrievalDataset,
    prepare_dataset,
)
from nearline_cli.terminal.output import JsonFlag, print_figures

_WARM_UP_S = 1.0


def bench_search(
    vectors: Annotated[
        Path, typer.Option(metavar="FILE.npy", help="Matrix of float32 vectors, one per row.")
    ],
    queries: Annotated[
        int, typer.Option(min=10, help="Number of random rows held out as queries.")
    ] = 1000,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Number of hits.")] = 10,
    ef: Annotated[int, typer.Option(min=1, max=4096, help="Width of the graph search.")] = 64,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="Callers in a closed loop.")
    ] = 8,
    index: Annotated[str, typer.Option(help="FAISS factory string.")] = "HNSW32",
    compare_index: Annotated[
        str, typer.Option(metavar="FACTORY", help="Another index to serve in the same run.")
    ] = "",
    compare_ef: Annotated[
        int, typer.Option(min=1, max=4096, help="Width of the graph search of the other index.")
    ] = 64,
    target_recall: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Use the smallest width of each graph that reaches this recall; 0: use --ef.",
        ),
    ] = 0.0,
    separate: Annotated[
        bool, typer.Option("--separate", help="Run the shard in a separate process.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds per round.")] = 4.0,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of each kind; medians are printed.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the held-out sample.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure search by vector over gRPC, compared with raw FAISS and a minimal server.

    For example: nearline bench search --vectors vectors.npy

    Server and callers share this machine. Rounds of raw FAISS, the minimal server and Nearline take
    turns, so that other load on the machine affects all three. With --compare-index, rounds of the
    two indexes take turns in one server.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        threads = len(os.sched_getaffinity(0))
        sides = [
            IndexVariant(
                factory, SearchTask(Path(folder), k, width, concurrency, threads, f"bench{number}")
            )
            for number, (factory, width) in enumerate(((index, ef), (compare_index, compare_ef)))
            if factory
        ]
        sides = [
            side if "HNSW" in side.factory else side._replace(task=side.task._replace(ef=0))
            for side in sides
        ]
        with single_process_pool() as one:
            prepared = one.submit(
                prepare_dataset, sides, vectors, queries, seed, target_recall
            ).result()
        take_turns = _compare if compare_index else _measure
        work = take_turns(prepared, separate=separate, seconds=seconds, rounds=rounds)
        measured = asyncio.run(work)
    record = measured | {
        "build_s": round(prepared.build_s[0], 2),
        "n": prepared.rows,
        "dim": prepared.dim,
        "index": index,
        "ef": prepared.sides[0].task.ef or None,
        "index_bytes": prepared.index_bytes[0],
        "k": k,
        "queries": queries,
        "concurrency": concurrency,
        "mode": "separate" if separate else "colocated",
        "cpus": threads,
        "rounds": rounds,
        "seconds": seconds,
        "seed": seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("nearline", "grpcio", "protobuf", "numpy")},
            "faiss": _faiss_version(),
        },
    }
    print_figures(record, as_json=as_json)


async def _measure(
    prepared: RetrievalDataset, *, separate: bool, seconds: float, rounds: int
) -> dict[str, object]:
    from benchmarks.baselines.baseline_faiss import faiss_round

    loop = asyncio.get_running_loop()
    task = prepared.sides[0].task
    raw_qps: list[float] = []
    floors: list[SearchRound] = []
    ours: list[SearchRound] = []
    with single_process_pool() as raw_process, single_process_pool() as caller:
        async with floor_process(task) as floor, _nearline(task, separate=separate) as router:
            for number in range(rounds + 1):
                # The first turn warms up all three, and does not count.
                length = seconds if number else _WARM_UP_S
                raw = await loop.run_in_executor(raw_process, faiss_round, task, length)
                least = await loop.run_in_executor(caller, run_round, task, floor.address, length)
                mine = await loop.run_in_executor(caller, run_round, task, router.address, length)
                if number:
                    raw_qps.append(raw)
                    floors.append(least)
                    ours.append(mine)
            rss = router.rss_bytes()
    figures = round_figures(ours, task.k)
    floor_qps = median(r.qps for r in floors)
    return figures | {
        "rss_bytes": rss,
        "raw_qps": round(median(raw_qps), 1),
        "floor_qps": round(floor_qps, 1),
        "floor_p99_ms": percentile_ms(floors, 99),
        "floor_recall": round(median(r.recall for r in floors), 4),
        "ratio_to_floor": round(median(r.qps for r in ours) / floor_qps, 3),
        "floor_to_raw": round(floor_qps / median(raw_qps), 3),
    }


async def _compare(
    prepared: RetrievalDataset, *, separate: bool, seconds: float, rounds: int
) -> dict[str, object]:
    """Measures two collections of one server in turn; the ratio is the median over pairs."""
    loop = asyncio.get_running_loop()
    tasks = [side.task for side in prepared.sides]
    found: list[list[SearchRound]] = [[], []]
    # CPU time per request: the only figure that is comparable on a busy machine.
    server_us: list[list[float]] = [[], []]
    with single_process_pool() as caller:
        async with _nearline(tasks[0], separate=separate) as (address, pids):
            for number in range(rounds + 1):
                length = seconds if number else _WARM_UP_S
                # The order alternates, so that a drift of the machine affects both alike.
                for side in (0, 1) if number % 2 else (1, 0):
                    before_s = cpu_seconds(pids)
                    one = await loop.run_in_executor(
                        caller, run_round, tasks[side], address, length
                    )
                    if number:
                        found[side].append(one)
                        spent = cpu_seconds(pids) - before_s
                        server_us[side].append(spent / len(one.latencies_s) * 1e6)
    ratios = sorted(mine.qps / other.qps for mine, other in zip(*found, strict=True))
    others = {
        f"compare_{name}": value for name, value in round_figures(found[1], tasks[1].k).items()
    }
    return {
        **round_figures(found[0], tasks[0].k),
        **others,
        "server_us": round(median(server_us[0]), 1),
        "compare_server_us": round(median(server_us[1]), 1),
        "ratio_to_compare": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "compare_index": prepared.sides[1].factory,
        "compare_ef": tasks[1].ef or None,
        "compare_build_s": round(prepared.build_s[1], 2),
        "compare_index_bytes": prepared.index_bytes[1],
    }


# --- the servers -----------------------------------------------------------------------------


def _nearline(task: SearchTask, *, separate: bool) -> AbstractAsyncContextManager[RunningRouter]:
    return router_process(("--store", str(task.store)), int(separate))


def _faiss_version() -> str:
    for name in ("faiss-cpu", "faiss-gpu"):
        with contextlib.suppress(ImportError):
            return version(name)
    return "unknown"
