"""Measures a GPU beside the CPU: embedding, the build of a graph, search, and a killed worker.

    python -m benchmarks.gpu > gpu.json

Needs an NVIDIA GPU and `nearline-server[standard-gpu]`; the data are made up. Prints one JSON
object with the name of the device. With --rehearse, all is small and the CPU stands in for the GPU:
that shows that the command works, and no speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.baselines.processes import run_in, single_process_pool
from benchmarks.workloads.bulk_callers import BulkCallers
from benchmarks.workloads.closed_loop import (
    METHOD,
    SearchRound,
    SearchTask,
    exact_answers,
    round_figures,
    run_batches,
    search_requests,
)
from benchmarks.workloads.figures import measured_on, percentile_ms
from benchmarks.workloads.prepared_calls import call_open_loop
from benchmarks.workloads.retrieval_dataset import IndexVariant, prepare_dataset
from benchmarks.workloads.vector_clusters import TEXT_SHAPE, VectorClusters
from embedding.devices import CPU, free_bytes
from embedding.reference_texts import cosines
from nearline import contract as c
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.errors import NotReady
from nearline.v1 import retrieval_pb2
from nearline_cli.local.gpu_probe import FAISS_GPU_WHEELS, probe_gpus
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    RETRIEVAL_SERVICES,
    ServiceProcess,
    service_process,
)
from nearline_cli.terminal.output import print_error, print_note

_GPU = "cuda:0"
_STAND_IN = "benchmarks.gpu_stand_in"
_WORKER = "retrieval.index.gpu.worker"
_FACTORY, _DIM, _K, _SEED = "HNSW32,Flat", 384, 10, 0
_BLOCK_ROWS = 1 << 16
# A start measures precisions, or copies vectors to the GPU and checks them.
_READY_S = 400.0
_BACK_S = 120.0
_WARM_UP_S = 1.0
# Texts of a request to the CPU, and its callers: its queue holds fewer tokens.
_CPU_TEXTS, _CPU_CALLERS = 64, 2
# Each is one token of MiniLM, which adds two to a text.
_WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world")
_TOKENS = 200
_PACKAGES = ("nearline", "torch", "faiss-cpu", *FAISS_GPU_WHEELS)


class Sizes(NamedTuple):
    """How much is measured.

    batch: Queries or texts of a request. callers: Each has one request in progress. rate: Searches
    per second while the worker is killed.
    """

    vectors: int = 1_000_000
    queries: int = 2_048
    batch: int = 256
    callers: int = 12
    texts: int = 4_096
    seconds: float = 5.0
    rounds: int = 3
    rate: float = 100.0


REHEARSAL = Sizes(
    vectors=3_000, queries=64, batch=8, callers=2, texts=16, seconds=0.5, rounds=1, rate=20.0
)


class Bench(NamedTuple):
    """A run. rehearsal: Whether the CPU stands in for the GPU."""

    folder: Path
    sizes: Sizes
    rehearsal: bool

    @property
    def task(self) -> SearchTask:
        """The searches: with the default width of the graph, because a width is for the CPU."""
        return SearchTask(self.folder, _K, 0, self.sizes.callers, 1, CPU, self.sizes.batch)

    def router(self, device: str) -> AbstractAsyncContextManager[ServiceProcess]:
        """Runs a router on a device for the duration of the block."""
        return self._service("retrieval", device, ["--store", str(self.task.store)])

    def embedding(self, device: str) -> AbstractAsyncContextManager[ServiceProcess]:
        """Runs an embedding service on a device for the duration of the block."""
        precision = ["--precision", "f32"] if self.rehearsal and device == _GPU else []
        return self._service("embedding", device, precision)

    def _service(
        self, name: str, device: str, arguments: Sequence[str]
    ) -> AbstractAsyncContextManager[ServiceProcess]:
        words = [*arguments, "--device", device]
        stand_in = self.rehearsal and device == _GPU
        return service_process(
            _STAND_IN if stand_in else name,
            [name, *words] if stand_in else words,
            ready_services=EMBEDDING_SERVICES if name == "embedding" else RETRIEVAL_SERVICES,
            ready_timeout_s=_READY_S,
            name=name,
        )


async def measure_embedding(bench: Bench) -> dict[str, object]:
    """Measures texts of 200 tokens over gRPC."""
    sizes = bench.sizes
    drawn = np.random.default_rng(_SEED).choice(_WORDS, (sizes.texts, _TOKENS - 2))
    texts = [" ".join(words) for words in drawn.tolist()]
    rates, vectors, engine = {}, {}, ""
    loads = ((CPU, _CPU_TEXTS, _CPU_CALLERS), (_GPU, sizes.batch, sizes.callers))
    for device, batch, callers in loads:
        async with bench.embedding(device) as service, EmbeddingClient(service.address) as client:
            info = await client.info()
            bulk = BulkCallers(client, texts, info, batch, callers)
            vectors[device] = await bulk.vectors()
            await bulk.rate(_WARM_UP_S)
            rates[device] = (await bulk.rate(sizes.seconds)).texts
            engine = info.backend
        if bulk.fallbacks:
            raise NotReady(f"the CPU embedded in place of the GPU: {bulk.fallbacks}")
    return {
        "engine": engine,
        "cpu_texts_per_s": round(rates[CPU], 1),
        "gpu_texts_per_s": round(rates[_GPU], 1),
        "ratio_to_cpu": round(rates[_GPU] / rates[CPU], 2),
        "least_cosine_to_cpu": round(float(cosines(vectors[_GPU], vectors[CPU]).min()), 5),
    }


async def measure_build(bench: Bench) -> dict[str, object]:
    """Measures the build of a graph; the one of the CPU is searched afterwards."""
    sizes, file = bench.sizes, bench.folder / "vectors.npy"
    sides = [
        IndexVariant(_FACTORY, bench.task, CPU),
        IndexVariant(
            _FACTORY, bench.task._replace(collection="gpu"), CPU if bench.rehearsal else _GPU
        ),
    ]
    with single_process_pool() as data:
        await run_in(data, _write_vectors, file, sizes.vectors + sizes.queries)
        found = await run_in(data, prepare_dataset, sides, file, sizes.queries)
    cpu, gpu = found.builds
    rates = [sizes.vectors / build.seconds["index"] for build in found.builds]
    return {
        "index": _FACTORY,
        "vectors": sizes.vectors,
        "cpu_vectors_per_s": round(rates[0], 1),
        "gpu_vectors_per_s": round(rates[1], 1),
        "ratio_to_cpu": round(rates[1] / rates[0], 2),
        f"cpu_recall@{_K}": round(cpu.recall_at_10, 4),
        f"gpu_recall@{_K}": round(gpu.recall_at_10, 4),
        "by_the_cpu_instead": list(gpu.device_notes),
    }


def _write_vectors(file: Path, count: int) -> None:
    rng = np.random.default_rng(_SEED)
    clusters = VectorClusters(rng, _DIM, TEXT_SHAPE)
    matrix = np.lib.format.open_memmap(file, "w+", np.float32, (count, _DIM))
    for first in range(0, count, _BLOCK_ROWS):
        block = matrix[first : first + _BLOCK_ROWS]
        block[:] = clusters.draw(rng, len(block))
    matrix.flush()


async def measure_search(bench: Bench) -> dict[str, object]:
    """Measures batches over gRPC: a graph on the CPU, all vectors on the GPU, and FAISS alone."""
    task, sizes = bench.task, bench.sizes
    rounds: dict[str, list[SearchRound]] = {CPU: [], _GPU: []}
    async with bench.router(CPU) as cpu, bench.router(_GPU) as gpu:
        await _check_gpu(gpu.address)
        with single_process_pool() as caller, single_process_pool() as alone:
            for turn in range(sizes.rounds + 1):
                # The first turn warms up, and does not count.
                length = sizes.seconds if turn else _WARM_UP_S
                for device, service in ((CPU, cpu), (_GPU, gpu)):
                    found = await run_in(caller, run_batches, task, service.address, length)
                    rounds[device] += [found] if turn else []
            # A GPU takes the requests that wait together.
            together = task._replace(batch=min(4 * sizes.batch, sizes.queries))
            peer = await run_in(alone, _faiss_gpu_flat, together, sizes.seconds)
    pairs = zip(rounds[_GPU], rounds[CPU], strict=True)
    return {
        "vectors": sizes.vectors,
        "batch": sizes.batch,
        **round_figures(rounds[CPU], _K, "cpu_"),
        **round_figures(rounds[_GPU], _K, "gpu_"),
        "ratio_to_cpu": round(median(mine.qps / other.qps for mine, other in pairs), 3),
        "by_the_cpu_instead": sum(one.fallbacks for one in rounds[_GPU]),
        "faiss_gpu_flat_qps": peer and round(peer[0], 1),
        f"faiss_gpu_flat_recall@{_K}": peer and round(peer[1], 4),
    }


def _faiss_gpu_flat(task: SearchTask, seconds: float) -> tuple[float, float] | None:
    # Imported late: FAISS ends its process if the GPU fails.
    from benchmarks.baselines.baseline_faiss_gpu import faiss_gpu_flat

    return faiss_gpu_flat(task, seconds)


async def _check_gpu(address: str) -> None:
    """Raises NotReady unless a GPU compares the vectors."""
    options = c.SearchOptions(k=_K, payload=frozenset(), exact=True)
    async with RetrievalClient(address) as client:
        query = c.Query(vector=np.eye(1, _DIM, dtype=np.float32)[0])
        info = (await client.search(query, options, collection=CPU, timeout_s=60.0)).info
    if info.served_by.reason or info.cost is None or not info.cost.gpu:
        raise NotReady(
            f"the CPU answers in place of the GPU: {info.served_by.reason or 'no GPU holds the'}"
            " vectors; see nearline doctor"
        )


async def measure_kill(bench: Bench) -> dict[str, object]:
    """Kills the worker of a router during searches in an open loop, until a GPU answers again."""
    rate, failed = bench.sizes.rate, 0
    reasons: list[str] = []
    latencies_s: list[float] = []
    async with bench.router(_GPU) as service:
        await _check_gpu(service.address)
        with single_process_pool() as caller:
            await run_in(caller, exact_answers, bench.task)
            children = psutil.Process(service.pid).children(recursive=True)
            (worker,) = (one for one in children if _WORKER in one.cmdline())
            start = time.monotonic()
            asyncio.get_running_loop().call_later(_WARM_UP_S / 2, worker.kill)
            back = False
            while not back and time.monotonic() < start + _BACK_S:
                found = await run_in(caller, _search_steadily, bench.task, service.address, rate)
                failed += found[0]
                reasons += found[1]
                latencies_s += found[2]
                back = any(reasons) and not reasons[-1]
    by_cpu = sum(map(bool, reasons))
    return {
        "searches_per_s": rate,
        "searches": len(reasons) + failed,
        "failed": failed,
        "by_the_cpu_instead": by_cpu,
        "reason": next(filter(None, reasons), ""),
        "p99_ms": percentile_ms(latencies_s, 99),
        "gpu_back_after_s": round(by_cpu / rate, 1) if back else None,
    }


def _search_steadily(
    task: SearchTask, address: str, rate: float
) -> tuple[int, list[str], list[float]]:
    """Searches for two seconds.

    Returns: The number of failures, the reason of each reply in the order of their requests, which
        is empty for those of the GPU, and the latencies.
    """
    searches = search_requests(task, exact_answers(task)["queries"])
    requests = [searches[number % len(searches)] for number in range(round(2 * rate))]
    calls = call_open_loop(address, METHOD, requests, rate)
    replies = [retrieval_pb2.SearchResponse.FromString(reply) for _, reply in sorted(calls.replies)]
    return calls.failed, [one.info.served_by.reason for one in replies], calls.latencies_s.tolist()


# A part reads the data of those before it.
PARTS: dict[str, Callable[[Bench], Awaitable[dict[str, object]]]] = {
    "embedding": measure_embedding,
    "build": measure_build,
    "search": measure_search,
    "kill": measure_kill,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status: 1 if a part failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--vectors", type=int, default=Sizes().vectors, help="Number of vectors (%(default)s)."
    )
    parser.add_argument("--rehearse", action="store_true", help="Run in small; needs no GPU.")
    options = parser.parse_args(argv)
    if not options.rehearse and not free_bytes():
        remedy = "run nearline doctor to see what is missing, or try the command with --rehearse"
        print_error(NotReady(f"torch finds no GPU; {remedy}"))
        return 1
    probe = probe_gpus()
    record: dict[str, object] = {
        "device": "rehearsal, not a GPU"
        if options.rehearse
        else next((gpu.name for gpu in probe.gpus), "unknown"),
        "driver": probe.driver,
        **measured_on(*_PACKAGES),
    }
    failed = 0
    with tempfile.TemporaryDirectory(prefix="nearline-gpu-") as folder:
        sizes = REHEARSAL if options.rehearse else Sizes(vectors=options.vectors)
        for name, part in PARTS.items():
            print_note(f"{name} ...")
            try:
                record[name] = asyncio.run(_run(part, Bench(Path(folder), sizes, options.rehearse)))
            # A part that fails, in whatever way, must not lose the others.
            except Exception as error:
                failed = 1
                record[name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(record, indent=1))
    return failed


async def _run(
    part: Callable[[Bench], Awaitable[dict[str, object]]], bench: Bench
) -> dict[str, object]:
    return await part(bench)


if __name__ == "__main__":
    sys.exit(main())
