"""`nearline bench retrieval`: speed and recall over gRPC, beside the least a server could do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import nearline
from nearline.cli.closed_loop import COLLECTION, Round, Task, call_round, exact_answers
from nearline.cli.output import JsonFlag, print_json, print_table
from nearline.errors import InvalidRequest, NotReady

_WARM_UP_S = 1.0


def bench_retrieval(
    vectors: Annotated[
        Path, typer.Option(metavar="FILE.npy", help="Matrix of float32 vectors, a row each.")
    ],
    queries: Annotated[
        int, typer.Option(min=10, help="Rows held out at random and asked with.")
    ] = 1000,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Hits wanted.")] = 10,
    ef: Annotated[int, typer.Option(min=1, max=4096, help="Width of the graph search.")] = 64,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="Callers; each waits for its answer.")
    ] = 8,
    index: Annotated[str, typer.Option(help="FAISS factory string.")] = "HNSW32",
    separate: Annotated[
        bool, typer.Option("--separate", help="Run the shard in a process of its own.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one round.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each; medians are printed.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the sample held out.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Measure Search by vector over gRPC, with raw FAISS and a minimal server in the same run.

    Server and callers share this machine. Rounds of raw FAISS, the minimal server and Nearline
    take turns, so that whatever else the machine does meets all three.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        graph = ef if "HNSW" in index else 0
        task = Task(Path(folder), k, graph, concurrency, len(os.sched_getaffinity(0)))
        with _process() as one:
            build_s, rows, dim = one.submit(_prepare, task, vectors, queries, index, seed).result()
        measured = asyncio.run(_measure(task, separate=separate, seconds=seconds, rounds=rounds))
    record = measured | {
        "build_s": round(build_s, 2),
        "n": rows,
        "dim": dim,
        "index": index,
        "ef": graph or None,
        "k": k,
        "queries": queries,
        "concurrency": concurrency,
        "mode": "separate" if separate else "colocated",
        "cpus": task.threads,
        "rounds": rounds,
        "seconds": seconds,
        "seed": seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("nearline", "grpcio", "protobuf", "numpy")},
            "faiss": _faiss_version(),
        },
    }
    if as_json:
        print_json(record)
    else:
        print_table(("figure", "value"), [(name, value) for name, value in record.items()])


async def _measure(task: Task, *, separate: bool, seconds: float, rounds: int) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    raw_qps: list[float] = []
    floors: list[Round] = []
    ours: list[Round] = []
    with _process() as raw_process, _process() as caller:
        async with _floor(task) as floor, _nearline(task, separate=separate) as (address, pids):
            for number in range(rounds + 1):
                # The first turn warms all three up and is not kept.
                length = seconds if number else _WARM_UP_S
                raw = await loop.run_in_executor(raw_process, _raw_round, task, length)
                least = await loop.run_in_executor(caller, call_round, task, floor, length)
                mine = await loop.run_in_executor(caller, call_round, task, address, length)
                if number:
                    raw_qps.append(raw)
                    floors.append(least)
                    ours.append(mine)
            rss = sum(_rss_bytes(pid) for pid in pids)
    qps, floor_qps = (median(r.qps for r in side) for side in (ours, floors))
    return {
        "qps": round(qps, 1),
        "p50_ms": _percentile_ms(ours, 50),
        "p99_ms": _percentile_ms(ours, 99),
        f"recall@{task.k}": round(median(r.recall for r in ours), 4),
        "rss_bytes": rss,
        "raw_qps": round(median(raw_qps), 1),
        "floor_qps": round(floor_qps, 1),
        "floor_p99_ms": _percentile_ms(floors, 99),
        "floor_recall": round(median(r.recall for r in floors), 4),
        "ratio_to_floor": round(qps / floor_qps, 3),
        "floor_to_raw": round(floor_qps / median(raw_qps), 3),
    }


# --- in a process of its own: the build, and the exact answers -------------------------------


def _prepare(
    task: Task, vectors: Path, queries: int, index: str, seed: int
) -> tuple[float, int, int]:
    """Builds the snapshot and the exact answers; gives seconds of the build, rows, dim."""
    from index_builder.pipeline import build_snapshot
    from index_builder.records import BuildOptions, IndexOptions
    from nearline.contract import Item

    matrix = np.array(_read(vectors), np.float32)
    if len(matrix) < queries + task.k:
        raise InvalidRequest(
            f"{vectors} has {len(matrix)} vectors; {queries} queries with k {task.k} need at "
            f"least {queries + task.k}",
            field="vectors",
        )
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    order = np.random.default_rng(seed).permutation(len(matrix))
    asked, base = matrix[np.sort(order[:queries])], matrix[np.sort(order[queries:])]
    ids = [f"{row:09d}" for row in range(len(base))]
    task.ids.write_text("\n".join(ids), "utf-8")
    np.savez(task.folder / "exact.npz", queries=asked, edge=_edges(base, asked, task.k))
    np.save(task.folder / "base.npy", base)
    documents = (Item(id=one, vector=row) for one, row in zip(ids, base, strict=True))
    options = BuildOptions(
        store=str(task.store),
        collection=COLLECTION,
        index=IndexOptions(factory=index, ef_search=task.ef or 64),
    )
    start = time.perf_counter()
    asyncio.run(build_snapshot(documents, options))
    return time.perf_counter() - start, len(base), base.shape[1]


def _read(path: Path) -> NDArray[Any]:
    try:
        matrix: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{path} is not a .npy file that can be read: {error}", field="vectors"
        ) from error
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise InvalidRequest(
            f"{path} holds {matrix.dtype} of shape {matrix.shape}; (n, d) floats are needed",
            field="vectors",
        )
    return matrix


def _edges(base: NDArray[np.float32], asked: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Gives the score of each query's exact k-th best row: what scores as well is found right."""
    edges = []
    for first in range(0, len(asked), 100):
        scores = asked[first : first + 100] @ base.T
        edges.append(np.partition(scores, -k, axis=1)[:, -k])
    return np.concatenate(edges)


# --- in a process of its own: raw FAISS ------------------------------------------------------


def _raw_round(task: Task, seconds: float) -> float:
    """Searches in a thread per core; gives queries per second."""
    import faiss

    keywords: Any = faiss
    index, queries = _raw_index(task), exact_answers(task)["queries"]
    params = (
        keywords.SearchParametersHNSW(efSearch=task.ef)
        if isinstance(index, faiss.IndexHNSW)
        else None
    )
    counts = [0] * task.threads
    end = time.perf_counter() + seconds

    def search(thread: int) -> None:
        faiss.omp_set_num_threads(1)
        for number in itertools.count(thread * len(queries) // task.threads):
            row = number % len(queries)
            index.search(queries[row : row + 1], task.k, params=params)
            counts[thread] += 1
            if time.perf_counter() >= end:
                return

    threads = [threading.Thread(target=search, args=(n,)) for n in range(task.threads)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


_kept: dict[str, Any] = {}


def _raw_index(task: Task) -> Any:
    if "index" not in _kept:
        import faiss

        _kept["index"] = faiss.read_index(str(_index_file(task)))
    return _kept["index"]


def _index_file(task: Task) -> Path:
    from nearline.snapshot import Store, shard_folder

    store = Store(task.store)
    snapshot_id = store.alias_in_force(COLLECTION).current
    return shard_folder(store.snapshot_folder(COLLECTION, snapshot_id), 0) / "dense.faiss"


# --- the servers -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _floor(task: Task) -> AsyncIterator[str]:
    root = Path(nearline.__file__).resolve().parents[1]
    if not (root / "benchmarks" / "floor_server.py").is_file():
        raise NotReady(
            f"the minimal server is not at {root / 'benchmarks'}; run the benchmark from a clone"
        )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.floor_server", "--threads", str(task.threads)),
        *("--index", str(_index_file(task)), "--ids", str(task.ids)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise NotReady("the minimal server ended at start; its last words are above")
        yield address
    finally:
        # The end of its input is its signal to stop, and comes even if this process is killed.
        process.stdin.close()
        await process.wait()


@contextlib.asynccontextmanager
async def _nearline(task: Task, *, separate: bool) -> AsyncIterator[tuple[str, list[int]]]:
    from nearline.cli.processes import SHARD_SERVICES, retrieval_process, service_process

    async with contextlib.AsyncExitStack() as stack:
        pids = []
        router: list[str] = []
        if separate:
            shard = await stack.enter_async_context(
                service_process(
                    "retrieval.shard_server",
                    ["--store", str(task.store)],
                    ready_services=SHARD_SERVICES,
                )
            )
            pids.append(shard.pid)
            router += ["--shards", f"0={shard.address}"]
        service = await stack.enter_async_context(retrieval_process(task.store, router))
        yield service.address, [*pids, service.pid]


def _rss_bytes(pid: int) -> int:
    import psutil

    rss: int = psutil.Process(pid).memory_info().rss
    return rss


def _percentile_ms(rounds: Sequence[Round], percentile: float) -> float:
    each = [float(np.percentile(one.latencies_s, percentile)) for one in rounds]
    return round(median(each) * 1e3, 3)


def _faiss_version() -> str:
    for name in ("faiss-cpu", "faiss-gpu"):
        with contextlib.suppress(ImportError):
            return version(name)
    return "unknown"


def _process() -> ProcessPoolExecutor:
    """Makes a process of its own: spawned, so that it inherits no threads and no memory."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
