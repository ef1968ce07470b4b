"""`nearline bench ingest`: throughput of the ingest queue, compared with the embedding service
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import typer

from benchmarks.workloads import text_samples
from benchmarks.workloads.bulk_callers import BATCH_TEXTS, IN_FLIGHT, BulkCallers, OtherCpuUse
from benchmarks.workloads.figures import measured_on, percentile_ms
from nearline import contract as c
from nearline.clients import EmbeddingClient, IngestClient
from nearline.errors import InternalError
from nearline.sentences import estimate_tokens
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.processes import (
    embedding_process,
    ingest_process,
    redis_process,
    retrieval_process,
    worker_process,
)
from nearline_cli.terminal.output import JsonFlag, print_figures

_SUBMIT_BATCH = 256
# Reads of finished results per second.
_READ_RATE = 10.0
_WARM_UP_S = 2.0
# Longer texts would be split into chunks, while plain embedding reads only their beginning.
_CHUNK_TOKENS = 240


class ServiceAddresses(NamedTuple):
    """Addresses of the services."""

    embedding: str
    ingest: str


class IngestBench(NamedTuple):
    """Options of the benchmark."""

    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Texts: one per line, or .jsonl with "text". \\[default: the docstrings of this '
            "Python's standard library]",
        ),
    ] = None
    documents: Annotated[
        int, typer.Option(min=64, help="Documents per round, with randomly chosen texts.")
    ] = 4_000
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of each kind; medians are printed.")
    ] = 3
    workers: Annotated[int, typer.Option(min=1, max=32, help="Number of workers.")] = 1
    backend: Annotated[str, typer.Option(help="Backend of the embedding service.")] = "auto"


def bench_ingest(*, bench: IngestBench, as_json: JsonFlag = False) -> None:
    """Measure indexing from submission to index, alternating with embedding the same texts alone.

    For example: nearline bench ingest --documents 4000

    Everything runs on this machine: embedding service, Redis, router with its shard, ingest service
    and workers. A round of the queue lasts from its first submission to the end of its job;
    meanwhile, pages of 100 finished results are read. Texts that would be split into chunks are
    left out, so that both embed the same.
    """
    chosen = [
        one
        for one in text_samples.sample_texts(bench.texts, 10 * bench.documents)
        if estimate_tokens(one) <= _CHUNK_TOKENS
    ][: bench.documents]
    record = asyncio.run(_measure(chosen, bench)) | {
        "documents": len(chosen),
        "rounds": bench.rounds,
        "workers": bench.workers,
        **measured_on("nearline", "grpcio", "redis", "openvino"),
    }
    print_figures(record, as_json=as_json)


async def _measure(texts: Sequence[str], bench: IngestBench) -> dict[str, object]:
    alone: list[float] = []
    queued: list[float] = []
    latencies_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        async with (
            _running(Path(folder), bench) as addresses,
            EmbeddingClient(addresses.embedding) as embedder,
            IngestClient(addresses.ingest) as ingest,
        ):
            info = await embedder.info()
            bulk = BulkCallers(embedder, texts, info, BATCH_TEXTS, IN_FLIGHT)
            await bulk.rate(_WARM_UP_S)
            warm, _ = await _ingest(ingest, texts[: len(texts) // 4], "warm")
            others = OtherCpuUse()
            for number in range(bench.rounds):
                # About as long as a round of the queue.
                alone.append((await bulk.rate(len(texts) / warm)).texts)
                rate, read = await _ingest(ingest, texts, f"round-{number}", _READ_RATE)
                queued.append(rate)
                latencies_s += read
            others_cpu_ratio = others.cpu_ratio()
            state = await ingest.queue()
    if state.dead or state.lag:
        raise InternalError(
            f"{state.dead} documents became dead letters and {state.lag} were not processed"
        )
    rate, base = median(queued), median(alone)
    return {
        "ratio": round(rate / base, 3),
        "documents_per_s": round(rate, 1),
        "embedding_documents_per_s": round(base, 1),
        "ratios": [round(one / other, 3) for one, other in zip(queued, alone, strict=True)],
        "read_p50_ms": percentile_ms(latencies_s, 50),
        "read_p99_ms": percentile_ms(latencies_s, 99),
        "reads": len(latencies_s),
        # Load of other processes: above 0.05 the ratio is not meaningful.
        "others_cpu_ratio": round(others_cpu_ratio, 3),
        "backend": info.backend,
        "fingerprint": info.fingerprint,
    }


async def _ingest(
    ingest: IngestClient, texts: Sequence[str], name: str, read_rate: float = 0.0
) -> tuple[float, list[float]]:
    """Submits texts as a job, and waits for its end.

    Returns: Documents per second, and the latencies of reading a different job's results.
    """
    items = [c.Item(id=f"{name}-{number}", text=text) for number, text in enumerate(texts)]
    read = [one for one in (await ingest.jobs(states=[c.JobState.SUCCEEDED])).jobs if one.ended]
    latencies_s: list[float] = []

    async def read_results(_: int, due: float) -> None:
        await ingest.results(read[0].job_id, page_size=100, timeout_s=60.0)
        # Latencies count from the due time, so that a late start counts as waiting.
        latencies_s.append(asyncio.get_running_loop().time() - due)

    async with asyncio.TaskGroup() as group:
        if read_rate:
            reading = group.create_task(run_open_loop(read_rate, itertools.count(), read_results))
        job_id = c.new_job_id()
        for at in range(0, len(items), _SUBMIT_BATCH):
            part = items[at : at + _SUBMIT_BATCH]
            more = at + len(part) < len(items)
            await ingest.submit(part, job_id=job_id, offset=at, more=more)
        async for job in ingest.watch(job_id):
            last = job
        if read_rate:
            reading.cancel()
    if last.indexed != len(items):
        raise InternalError(f"{last.indexed} of {len(items)} documents were indexed: {last}")
    assert last.finish_time is not None
    # Timed by the clock of the queue, because watchers see the end a moment later.
    spent_s = (last.finish_time - last.create_time).total_seconds()
    return len(items) / spent_s, latencies_s


@contextlib.asynccontextmanager
async def _running(folder: Path, bench: IngestBench) -> AsyncIterator[ServiceAddresses]:
    """Runs all services, with a collection of one document."""
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    async with (
        embedding_process(("--backend", bench.backend)) as embedding,
        redis_process(folder / "redis") as redis,
        contextlib.AsyncExitStack() as stack,
    ):
        async with EmbeddingClient(embedding.address) as embedder:
            first = [c.Item(id="first", text="the first document")]
            await build_snapshot(first, BuildOptions(store=str(folder / "store")), embedder)
        router = await stack.enter_async_context(
            retrieval_process(folder / "store", ("--redis", redis), embedding=embedding.address)
        )
        ingest = await stack.enter_async_context(ingest_process(redis))
        for _ in range(bench.workers):
            sizes = ("--batch", str(BATCH_TEXTS), "--in-flight", str(IN_FLIGHT))
            await stack.enter_async_context(worker_process(redis, router.address, sizes))
        yield ServiceAddresses(embedding.address, ingest.address)
