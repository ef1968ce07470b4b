"""`nearline bench search`: speed and recall over gRPC, compared with a minimal server."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.baselines.processes import (
    floor_process,
    router_process,
    run_in,
    single_process_pool,
)
from benchmarks.workloads.closed_loop import SearchRound, SearchTask, round_figures, run_round
from benchmarks.workloads.figures import measured_on, median_ms
from benchmarks.workloads.retrieval_dataset import IndexVariant, prepare_dataset
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
    separate: Annotated[
        bool, typer.Option("--separate", help="Run the shard in a separate process.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds per round.")] = 4.0,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of each kind; medians are printed.")
    ] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Measure search by vector over gRPC, compared with raw FAISS and a minimal server.

    For example: nearline bench search --vectors vectors.npy

    Server and callers share this machine. Rounds of raw FAISS, the minimal server and Nearline take
    turns, so that other load on the machine affects all three.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        threads = len(os.sched_getaffinity(0))
        task = SearchTask(Path(folder), k, ef if "HNSW" in index else 0, concurrency, threads)
        with single_process_pool() as one:
            sides = [IndexVariant(index, task)]
            prepared = one.submit(prepare_dataset, sides, vectors, queries).result()
        measured = asyncio.run(_measure(task, separate=separate, seconds=seconds, rounds=rounds))
    record = measured | {
        "build_s": round(prepared.build_s[0], 2),
        "n": prepared.rows,
        "dim": prepared.dim,
        "index": index,
        "ef": task.ef or None,
        "index_bytes": prepared.index_bytes[0],
        "k": k,
        "queries": queries,
        "concurrency": concurrency,
        "mode": "separate" if separate else "colocated",
        "rounds": rounds,
        "seconds": seconds,
        **measured_on("nearline", "grpcio", "protobuf", "numpy", "faiss-cpu", "faiss-gpu"),
    }
    print_figures(record, as_json=as_json)


async def _measure(
    task: SearchTask, *, separate: bool, seconds: float, rounds: int
) -> dict[str, object]:
    from benchmarks.baselines.baseline_faiss import faiss_round

    store = ("--store", str(task.store))
    raw_qps: list[float] = []
    floors: list[SearchRound] = []
    ours: list[SearchRound] = []
    with single_process_pool() as raw_process, single_process_pool() as caller:
        async with floor_process(task) as floor, router_process(store, int(separate)) as router:
            for number in range(rounds + 1):
                # The first turn warms up all three, and does not count.
                length = seconds if number else _WARM_UP_S
                raw = await run_in(raw_process, faiss_round, task, length)
                least = await run_in(caller, run_round, task, floor.address, length)
                mine = await run_in(caller, run_round, task, router.address, length)
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
        "floor_p99_ms": median_ms([turn.latencies_s for turn in floors], 99),
        "floor_recall": round(median(r.recall for r in floors), 4),
        "ratio_to_floor": round(median(r.qps for r in ours) / floor_qps, 3),
        "floor_to_raw": round(floor_qps / median(raw_qps), 3),
    }
