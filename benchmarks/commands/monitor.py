"""`nearline bench monitor`: cost of monitoring a router, and accuracy of its recall estimate."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
import urllib.request
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.baselines.processes import single_process_pool
from benchmarks.workloads.closed_loop import SearchRound, SearchTask, run_round
from benchmarks.workloads.prepared_calls import percentile_ms
from benchmarks.workloads.retrieval_dataset import IndexVariant, RetrievalDataset, prepare_dataset
from nearline.errors import NotReady
from nearline_cli.local.processes import free_port, retrieval_process
from nearline_cli.terminal.output import JsonFlag, print_figures

# Lead-in of each turn, longer than the delay of a repeated search. Repetitions of the previous turn
# are then finished, and those of this turn keep up with its searches.
_LEAD_S = 4.5
_POLL_S = 4.0
_PATIENCE_S = 30.0
_RECALL = "nearline_retrieval_online_recall"
_SKIPPED = "nearline_retrieval_recall_skipped_total"
# A router without monitoring.
_UNMONITORED = ("--recall-sample", "0", "--record-queries", "off", "--drift-sample", "0")


def bench_monitor(
    vectors: Annotated[
        Path, typer.Option(metavar="FILE.npy", help="Matrix of float32 vectors, one per row.")
    ],
    sample: Annotated[
        float,
        typer.Option(min=0.0001, max=1, help="Share of searches that are repeated as exact scans."),
    ] = 0.01,
    queries: Annotated[
        int, typer.Option(min=10, help="Number of random rows held out as queries.")
    ] = 1000,
    ef: Annotated[int, typer.Option(min=1, max=4096, help="Width of the graph search.")] = 32,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="Callers in a closed loop.")
    ] = 8,
    index: Annotated[str, typer.Option(help="FAISS factory string.")] = "HNSW32",
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds per round.")] = 5.0,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of each kind; medians are printed.")
    ] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the held-out sample.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure search with all monitoring switched on, and off, in turn.

    For example: nearline bench monitor --vectors vectors.npy --sample 0.01

    Two routers serve the same snapshot: one with the default monitoring, which repeats
    the share --sample of its searches exactly; the other without monitoring. The recall that the
    first one reports is compared with that of all its replies, each checked against an exact scan
    made before. Each round starts with some seconds that do not count.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        threads = len(os.sched_getaffinity(0))
        side = IndexVariant(index, SearchTask(Path(folder), 10, ef, concurrency, threads))
        if "HNSW" not in index:
            side = side._replace(task=side.task._replace(ef=0))
        with single_process_pool() as one:
            prepared = one.submit(prepare_dataset, [side], vectors, queries, seed, 0.0).result()
        work = _measure(prepared, sample=sample, seconds=seconds, rounds=rounds)
        measured = asyncio.run(work)
    record = measured | {
        "sample": sample,
        "n": prepared.rows,
        "dim": prepared.dim,
        "index": index,
        "ef": side.task.ef or None,
        "queries": queries,
        "concurrency": concurrency,
        "cpus": threads,
        "rounds": rounds,
        "seconds": seconds,
        "seed": seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("nearline", "grpcio", "numpy")},
        },
    }
    print_figures(record, as_json=as_json)


async def _measure(
    prepared: RetrievalDataset, *, sample: float, seconds: float, rounds: int
) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    task = prepared.sides[0].task
    port = free_port()
    monitoring = ("--recall-sample", str(sample), "--metrics-port", str(port))
    found: tuple[list[SearchRound], list[SearchRound]] = ([], [])
    with single_process_pool() as caller:
        async with (
            retrieval_process(task.store, _UNMONITORED) as unmonitored,
            retrieval_process(task.store, monitoring) as monitored,
        ):
            addresses = unmonitored.address, monitored.address
            for number in range(rounds):
                # The order alternates, so that a drift of the machine affects both alike.
                for side in (1, 0) if number % 2 else (0, 1):
                    call = partial(run_round, task, addresses[side], seconds, lead_s=_LEAD_S)
                    found[side].append(await loop.run_in_executor(caller, call))
            seen = await _settled(port)
    without, with_all = found
    ratios = sorted(one.qps / other.qps for one, other in zip(with_all, without, strict=True))
    replies = sum(turn.replies for turn in with_all)
    offline = sum(turn.recall * turn.replies for turn in with_all) / replies
    online = seen[f"{_RECALL}_sum"] / seen[f"{_RECALL}_count"]
    return {
        "qps": round(median(turn.qps for turn in with_all), 1),
        "qps_unwatched": round(median(turn.qps for turn in without), 1),
        "ratio": round(median(ratios), 4),
        "ratio_quartiles": [round(ratios[len(ratios) * at // 4], 4) for at in (1, 3)],
        "p99_ms": percentile_ms(with_all, 99),
        "p99_ms_unwatched": percentile_ms(without, 99),
        "recall_online": round(online, 4),
        "recall_offline": round(offline, 4),
        "difference": round(abs(online - offline), 4),
        "compared": int(seen[f"{_RECALL}_count"]),
        "compared_share": round(seen[f"{_RECALL}_count"] / replies, 5),
        "skipped": int(seen.get(_SKIPPED, 0)),
    }


async def _settled(port: int) -> dict[str, float]:
    """Waits until the router has compared its sample; returns its metrics, summed over labels.

    Raises:
        NotReady: It has not compared any search.
    """
    before: dict[str, float] = {}
    for _ in range(int(_PATIENCE_S / _POLL_S)):
        await asyncio.sleep(_POLL_S)
        now = await asyncio.to_thread(_sums, port)
        compared = now.get(f"{_RECALL}_count", 0)
        if compared and compared == before.get(f"{_RECALL}_count"):
            return now
        before = now
    raise NotReady("the router compared no search; increase --seconds or --sample")


def _sums(port: int) -> dict[str, float]:
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums
