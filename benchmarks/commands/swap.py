"""`nearline bench swap`: promotes snapshots under load, and checks that no caller notices."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.workloads.swap_checks import ReplyChecker
from benchmarks.workloads.swap_dataset import (
    COLLECTION,
    MAX_DOCUMENTS,
    SwapDataset,
    build_snapshots,
    common_questions,
)
from benchmarks.workloads.swap_load import (
    LoadPhase,
    LoadResults,
    RequestKind,
    SwapLoad,
    run_swap_load,
)
from nearline import contract as c
from nearline.clients import AdminClient, EmbeddingClient, GenerationClient, RetrievalClient
from nearline.errors import NotReady
from nearline.v1 import release_pb2
from nearline_cli.local.processes import (
    GENERATION_SERVICES,
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    embedding_process,
    service_process,
)
from nearline_cli.terminal.output import JsonFlag, print_figures

# Every snapshot of the bench is a good one; judging each would take longer than the bench.
_FORCED = release_pb2.GateVerdict(forced_because="bench swap")
_QUESTIONS = 200
_SETTLE_S = 30.0
# Options that are repeated in the figures.
_REPORTED = ("every_s", "routers", "replicas", "shards", "documents")


class _Deployment(NamedTuple):
    """Addresses of the services."""

    routers: Sequence[str]
    generation: str


class SwapBench(NamedTuple):
    """Options of the benchmark."""

    rate: Annotated[float, typer.Option(min=1, help="Requests per second, over all kinds.")] = 200.0
    warm_up_s: Annotated[
        float, typer.Option("--warm-up", min=0, help="Seconds of load that do not count.")
    ] = 5.0
    rest_s: Annotated[
        float, typer.Option("--rest", min=1, help="Seconds of load without a promotion.")
    ] = 15.0
    flips: Annotated[int, typer.Option(min=1, help="Number of promotions.")] = 10
    every_s: Annotated[
        float, typer.Option("--every", min=0.2, help="Seconds between two promotions.")
    ] = 2.0
    routers: Annotated[int, typer.Option(min=1, max=8, help="Number of routers.")] = 2
    replicas: Annotated[
        int,
        typer.Option(
            min=0, max=8, help="Number of shard servers; 0: the shards run in the routers."
        ),
    ] = 2
    shards: Annotated[int, typer.Option(min=1, max=16, help="Shards per server.")] = 2
    documents: Annotated[
        int, typer.Option(min=100, max=MAX_DOCUMENTS, help="Documents per snapshot.")
    ] = 1_000
    drain_s: Annotated[
        float, typer.Option("--drain", min=0.1, help="Seconds until an old snapshot is unloaded.")
    ] = 3.0
    seed: Annotated[int, typer.Option(help="Seed of texts, interactions and requests.")] = 0


def bench_swap(*, bench: SwapBench, as_json: JsonFlag = False) -> None:
    """Swap snapshots under an open loop of requests; count failures and mixed replies.

    For example: nearline bench swap --rate 200 --flips 10

    Three snapshots take turns, each promoted through a different router. Every id and sentence of a
    snapshot carries its stamp, and its users interacted with a different third of the documents. A
    reply is mixed if anything in it (ids, texts, the training data of a list, an answer, the spans
    it cites) is not from the snapshot that it names. Of 20 requests, 11 search by vector, 2 by text
    (hybrid), 6 request lists (3 for a user, 2 for an item, 1 for a new visitor) and 1 requests an
    answer from the extractive writer, whose service uses the first router.

    The same load runs without promotions first. p99_ratio is the ratio of the 99th percentiles
    during the flips and at rest, over all requests; p99_ratio_search and so on are by kind.
    Latencies count from the time a request was due to the end of its reply. failed, mixed_epochs,
    partial (a shard was missing) and fallbacks (a degraded reply) count everything after the
    warm-up, including requests while the last snapshots are unloaded; `first` has the first message
    of each class. flips_seen is the number of flips seen by the callers of a router, the minimum
    over routers.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        phases = {
            LoadPhase.WARM_UP: bench.warm_up_s,
            LoadPhase.REST: bench.rest_s,
            LoadPhase.FLIPS: bench.flips * bench.every_s,
            LoadPhase.SETTLE: bench.drain_s + 1.0,
        }
        row = asyncio.run(_measure(Path(folder), phases, bench))
    print_figures(row, as_json=as_json)


async def _measure(
    folder: Path, phases: dict[LoadPhase, float], bench: SwapBench
) -> dict[str, object]:
    seen = LoadResults()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        embedding = (await enter(embedding_process())).address
        embedder = await enter(EmbeddingClient(embedding))
        documents, seed = bench.documents, bench.seed
        built = await build_snapshots(folder / "store", embedder, documents, bench.shards, seed)
        questions = common_questions(documents, _QUESTIONS, np.random.default_rng(seed))
        vectors = (await embedder.embed(questions, c.TextRole.QUERY, timeout_s=60.0)).vectors
        services = await enter(_deployed(folder / "store", embedding, bench))
        load = SwapLoad(
            routers=[await enter(RetrievalClient(address)) for address in services.routers],
            generator=await enter(GenerationClient(services.generation)),
            checker=ReplyChecker(built.stamps, built.texts),
            questions=questions,
            vectors=vectors,
            documents=documents,
            rate=bench.rate,
            phases=list(phases.items()),
            seed=seed,
        )
        admins = [await enter(AdminClient(address)) for address in services.routers]
        # Opens the connections, so that the first requests do not wait for them.
        for admin in admins:
            await admin.serving_status()
        start = asyncio.get_running_loop().time()
        first = start + phases[LoadPhase.WARM_UP] + phases[LoadPhase.REST]
        async with asyncio.TaskGroup() as running:
            running.create_task(run_swap_load(load, start, seen))
            swaps = running.create_task(_swap(admins, built, first, bench))
        await _reached(admins, swaps.result())
    return {
        **swap_figures(seen, bench.flips),
        "rate": bench.rate,
        **{f"{phase.value}_s": seconds for phase, seconds in phases.items()},
        **{name: getattr(bench, name) for name in _REPORTED},
    }


def swap_figures(seen: LoadResults, flips: int) -> dict[str, object]:
    """Returns the figures of a row; times are in milliseconds, None if no request was answered."""
    figures: dict[str, object] = {
        "requests": seen.requests,
        "failed": sum(seen.errors.values()),
        "mixed_epochs": seen.mixed,
        "partial": seen.partial,
        "fallbacks": seen.fallbacks,
        "answered": seen.answered,
        "refused": seen.refused,
        "flips": flips,
        "flips_seen": min((len(epochs) for epochs in seen.epochs.values()), default=1) - 1,
    }
    ratios: dict[str, object] = {}
    times: dict[str, object] = {}
    for name, kinds in (("", tuple(RequestKind)), *((one.value, (one,)) for one in RequestKind)):
        flipping, rest = (
            [at * 1e3 for kind in kinds for at in seen.latencies_s.get((phase, kind), ())]
            for phase in (LoadPhase.FLIPS, LoadPhase.REST)
        )
        during, before = _percentile(flipping, 99), _percentile(rest, 99)
        ratio = None if during is None or before is None else round(during / before, 3)
        ratios[f"p99_ratio_{name}".rstrip("_")] = ratio
        prefix = f"{name}_" if name else ""
        times[f"{prefix}p50_ms"] = _percentile(flipping, 50)
        times[f"{prefix}p50_at_rest_ms"] = _percentile(rest, 50)
        times[f"{prefix}p99_ms"], times[f"{prefix}p99_at_rest_ms"] = during, before
    return {**figures, **ratios, **times, "errors": dict(seen.errors), "first": seen.first}


def _percentile(values: Sequence[float], percentile: float) -> float | None:
    return round(float(np.percentile(values, percentile)), 3) if values else None


async def _swap(
    admins: Sequence[AdminClient], built: SwapDataset, first: float, bench: SwapBench
) -> int:
    """Promotes the next snapshot repeatedly, through the routers in turn; returns the epoch."""
    loop = asyncio.get_running_loop()
    snapshot_ids = list(built.stamps)
    epoch = 0
    for number in range(bench.flips):
        await asyncio.sleep(first + number * bench.every_s - loop.time())
        snapshot_id = snapshot_ids[(number + 1) % len(snapshot_ids)]
        admin = admins[number % len(admins)]
        epoch = (await admin.promote(snapshot_id, COLLECTION, why="bench swap", gate=_FORCED)).epoch
    return epoch


async def _reached(admins: Sequence[AdminClient], epoch: int) -> None:
    """Waits until every router serves the current alias record."""
    found = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_S):
            while True:
                status = [(await admin.serving_status()).collections[0] for admin in admins]
                if all(collection.epoch == epoch for collection in status):
                    return
                found = ", ".join(
                    f"{collection.epoch} {collection.problem}" for collection in status
                )
                await asyncio.sleep(0.1)
    raise NotReady(f"{_SETTLE_S:g} s after the last promotion epoch {epoch} is not served: {found}")


@contextlib.asynccontextmanager
async def _deployed(store: Path, embedding: str, bench: SwapBench) -> AsyncIterator[_Deployment]:
    arguments = ["--store", str(store), "--snapshot-drain-s", str(bench.drain_s), "--drain-s", "0"]
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                service_process("retrieval.shard_server", arguments, ready_services=SHARD_SERVICES)
            )
            for _ in range(bench.replicas)
        ]
        replica_addresses = ",".join(server.address for server in servers)
        topology = ";".join(f"{number}={replica_addresses}" for number in range(bench.shards))
        words = [*arguments, "--embedding", embedding, *(("--shards", topology) if servers else ())]
        found = [
            await stack.enter_async_context(
                service_process("retrieval", words, ready_services=RETRIEVAL_SERVICES)
            )
            for _ in range(bench.routers)
        ]
        generation = await stack.enter_async_context(
            service_process(
                "generation",
                ["--retrieval", found[0].address, "--embedding", embedding],
                ready_services=GENERATION_SERVICES,
            )
        )
        yield _Deployment([one.address for one in found], generation.address)
