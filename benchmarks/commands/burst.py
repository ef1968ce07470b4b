"""`nearline bench burst`: how the workers scale with a burst of documents."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.workloads.burst_load import (
    BurstLoad,
    BurstRun,
    count_outcomes,
    numbered_items,
    run_burst,
)
from nearline.clients import IngestClient, RetrievalClient
from nearline.contract import Embedder
from nearline.errors import NotReady
from nearline.store.snapshot import Store
from nearline_cli.local.autoscaler import ScalingEvent, WorkerPool, run_autoscaler
from nearline_cli.local.process_plan import Layout, ProcessPlan, plan_processes
from nearline_cli.local.scaling_policy import IDLE_S, TARGET_S, ScalingOptions
from nearline_cli.local.supervisor import ProcessSpec, run_supervised
from nearline_cli.terminal.output import JsonFlag, print_figures
from nearline_cli.views.process_report import ProcessReport

_DOCUMENTS = 500
_PROBE = 100


def bench_burst(
    rate: Annotated[
        float, typer.Option(min=0, help="Documents per second; 0: 0.6 of a worker's capacity.")
    ] = 0.0,
    factor: Annotated[
        float, typer.Option(min=1, help="Rate of the burst, as a multiple of the steady rate.")
    ] = 5,
    steady_s: Annotated[
        float, typer.Option("--steady", min=1, help="Seconds before the burst.")
    ] = 15.0,
    burst_s: Annotated[float, typer.Option("--burst", min=1, help="Seconds of the burst.")] = 15.0,
    after_s: Annotated[
        float, typer.Option("--after", min=1, help="Seconds at the steady rate after the burst.")
    ] = 60.0,
    max_workers: Annotated[int, typer.Option(min=1, max=64, help="Maximum number of workers.")] = 4,
    target_s: Annotated[
        float,
        typer.Option(
            "--target", min=0.1, help="Seconds within which the queue should be processed."
        ),
    ] = TARGET_S,
    idle_s: Annotated[
        float, typer.Option("--idle", min=0.1, help="Idle seconds before workers are stopped.")
    ] = IDLE_S,
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Documents that a worker takes at a time.")
    ] = 4,
    embed_s: Annotated[
        float,
        typer.Option(
            "--embed-s", min=0, help="Duration of an embedding call; calls run concurrently."
        ),
    ] = 0.1,
    as_json: JsonFlag = False,
) -> None:
    """Submit documents at a steady rate, then a burst, and watch the workers scale.

    For example: nearline bench burst --factor 5

    Redis, router, ingest service, autoscaler and workers are those of `nearline up`. The embedding
    service is a stand-in that only waits, like a model on another machine, so that workers are the
    bottleneck and not the cores of this machine. The capacity of one worker is measured first. The
    row shows the number of workers, the longest queue, when the queue was empty again, whether
    every document was indexed, and whether the workers were scaled to zero; `timeline` has a sample
    every 0.5 s.
    """
    scaling = ScalingOptions(max_workers=max_workers, target_s=target_s, idle_s=idle_s)
    load = BurstLoad(rate=rate, factor=factor, steady_s=steady_s, burst_s=burst_s, after_s=after_s)
    with tempfile.TemporaryDirectory(prefix="nearline-burst-") as folder:
        row = asyncio.run(_measure(Path(folder), load, scaling, batch, embed_s))
    shown = row if as_json else {k: v for k, v in row.items() if k not in ("timeline", "scalings")}
    print_figures(shown, as_json=as_json)


async def _measure(
    folder: Path, load: BurstLoad, scaling: ScalingOptions, batch: int, embed_s: float
) -> dict[str, object]:
    # Imported late: it loads packages that only servers need.
    from benchmarks.baselines.embedding_stub import SlowEmbedder, serve_slow_embedder

    await _build(folder / "store", SlowEmbedder(0.0))
    layout = Layout(
        store=Store(folder / "store"),
        shards=1,
        embedding=False,
        port=0,
        redis_port=0,
        ingest_port=0,
    )
    # Reports go to standard error, so that standard output has only the row.
    report = ProcessReport(as_json=False, verbose=False)
    run = BurstRun()

    def scaled(change: ScalingEvent) -> None:
        run.scalings.append((round(run.now(), 2), change))
        report.scaled(change)

    with plan_processes(layout) as processes:
        if processes.worker is None:
            raise NotReady(processes.note)
        worker = _limit_batch(processes.worker, batch)
        async with (
            serve_slow_embedder(SlowEmbedder(embed_s)) as embedding,
            run_supervised(_embedding_at(embedding, processes).stages, report.change, report.line),
            IngestClient(processes.ingest[0].address) as ingest,
            RetrievalClient(processes.address) as router,
        ):
            capacity = await _capacity(ingest, WorkerPool(worker, report.change, report.line))
            load = replace(load, rate=load.rate or round(0.6 * capacity, 1))
            pool = WorkerPool(worker, report.change, report.line)
            async with run_autoscaler(processes.ingest[0].address, pool, scaling, scaled):
                await run_burst(ingest, load, run, pool, scaling.idle_s)
            counts = await count_outcomes(ingest, router, run)
    return _row(load, scaling, capacity, run, counts) | {"batch": batch, "embed_s": embed_s}


def _embedding_at(address: str, processes: ProcessPlan) -> ProcessPlan:
    (router,) = processes.routers
    configured = replace(router, arguments=(*router.arguments, "--embedding", address))
    return replace(processes, routers=(configured,))


def _limit_batch(worker: Callable[[int], ProcessSpec], batch: int) -> Callable[[int], ProcessSpec]:
    """Limits workers to this many documents at a time."""

    def plan(number: int) -> ProcessSpec:
        spec = worker(number)
        limits = ("--batch", str(batch), "--in-flight", "1")
        return replace(spec, arguments=(*spec.arguments, *limits))

    return plan


async def _build(store: Path, embedder: Embedder) -> None:
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    options = BuildOptions(store=str(store), shards=1)
    await build_snapshot(numbered_items("d", 0, _DOCUMENTS), options, embedder)


async def _capacity(ingest: IngestClient, pool: WorkerPool) -> float:
    """Returns the documents per second that one worker processes."""
    clock = asyncio.get_running_loop().time
    await ingest.submit(numbered_items("probe", 0, _PROBE), timeout_s=30.0)
    pool.resize(1)
    try:
        async with asyncio.timeout(120):
            while (left := (await ingest.queue()).lag) == _PROBE:
                await asyncio.sleep(0.02)
            start, initial = clock(), left
            while left:
                await asyncio.sleep(0.02)
                left = (await ingest.queue()).lag
            return initial / (clock() - start)
    finally:
        await pool.close()


def _row(
    load: BurstLoad,
    scaling: ScalingOptions,
    capacity: float,
    run: BurstRun,
    counts: Mapping[str, int],
) -> dict[str, object]:
    burst_end_s = load.steady_s + load.burst_s
    samples = run.samples
    # The first half of the steady phase is the start of the first worker.
    before = [sample for sample in samples if load.steady_s / 2 <= sample.t < load.steady_s]
    afterwards = [sample for sample in samples if burst_end_s <= sample.t < load.seconds]
    empty_at_s = next(
        (sample.t for sample in samples if sample.t >= burst_end_s and not sample.waiting), None
    )
    ended = samples[-1]
    return {
        "max_workers_seen": max(sample.workers for sample in samples),
        "workers_before": max((one.workers for one in before), default=0),
        "workers_after": afterwards[-1].workers if afterwards else 0,
        "scaled_to_zero": not ended.workers,
        "lag_max": max(sample.lag for sample in samples),
        "oldest_age_max_s": max(sample.oldest_age_s for sample in samples),
        "lag_zero_after_s": None if empty_at_s is None else round(empty_at_s - burst_end_s, 2),
        "zero_workers_after_s": None if ended.workers else round(ended.t - load.seconds, 2),
        "submitted": run.submitted,
        **counts,
        "rate": load.rate,
        "burst_rate": round(load.factor * load.rate, 1),
        "worker_documents_per_s": round(capacity, 1),
        "steady_s": load.steady_s,
        "burst_s": load.burst_s,
        "after_s": load.after_s,
        "max_workers": scaling.max_workers,
        "target_s": scaling.target_s,
        "idle_s": scaling.idle_s,
        "scalings": [
            {"t": t, "from": one.before, "to": one.after, "lag": one.lag, "reason": one.reason}
            for t, one in run.scalings
        ],
        "timeline": [asdict(sample) for sample in samples],
    }
