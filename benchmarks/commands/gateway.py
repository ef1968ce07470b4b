"""`nearline bench gateway`: what HTTP costs beside gRPC."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from benchmarks.baselines.processes import router_process, single_process_pool
from benchmarks.workloads.gateway_callers import (
    Round,
    first_events_by_grpc,
    first_events_by_http,
    search_by_grpc,
    search_by_http,
)
from nearline.contract import Item
from nearline_cli.local.processes import GENERATION_SERVICES, service_process
from nearline_cli.terminal.output import JsonFlag, print_figures

_DIM = 64
_WARM_UP_S = 1.0
# Answers whose first event is waited for, in each round.
_ANSWERS = 20


def bench_gateway(
    *,
    documents: Annotated[int, typer.Option(min=500, help="Documents in the snapshot.")] = 20_000,
    callers: Annotated[int, typer.Option(min=1, max=1_000, help="Callers at once.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds per round.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 7,
    as_json: JsonFlag = False,
) -> None:
    """Search by gRPC and by HTTP in turn, and wait for first events of answers.

    Callers search a router by vector (k 10) in a closed loop, directly and through the gateway,
    and parse the replies. They share the processors with the router and the gateway. The first
    event of an answer is the one that names the documents found; a stand-in embeds in no time.

    Figures: medians of the rounds. ratio is the throughput of HTTP compared with that of gRPC in
    the same round.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        record = asyncio.run(_measure(Path(folder), documents, callers, seconds, rounds))
    print_figures(record, as_json=as_json)


async def _measure(
    folder: Path, documents: int, callers: int, seconds: float, rounds: int
) -> dict[str, object]:
    # Imported late: it loads packages that only servers need.
    from benchmarks.baselines.embedding_stub import SlowEmbedder, serve_slow_embedder
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    embedder = SlowEmbedder(0.0)
    items = [Item(id=f"d{number}", text=f"document {number}") for number in range(documents)]
    await build_snapshot(items, BuildOptions(store=str(folder)), embedder)
    vectors = np.random.default_rng(0).standard_normal((500, _DIM)).astype(np.float32)
    loop = asyncio.get_running_loop()
    found: list[tuple[Round, Round]] = []
    events: tuple[list[float], list[float]] = ([], [])
    async with serve_slow_embedder(embedder) as embedding:
        words = ("--embedding", embedding)
        async with (
            router_process(("--store", str(folder), *words), 0) as router,
            service_process(
                "generation",
                ("--retrieval", router.address, *words),
                ready_services=GENERATION_SERVICES,
            ) as generation,
            service_process(
                "gateway",
                ("--port", "0", "--retrieval", router.address, "--generation", generation.address),
                ready_services=(),
            ) as gateway,
        ):
            sides = ((search_by_grpc, router.address), (search_by_http, gateway.address))
            with single_process_pool() as caller:
                for number in range(rounds + 1):
                    length = seconds if number else _WARM_UP_S
                    one = [
                        await loop.run_in_executor(
                            caller, search, address, vectors, callers, length
                        )
                        for search, address in sides
                    ]
                    if number:
                        found.append((one[0], one[1]))
                for _ in range(rounds):
                    events[0].extend(
                        await loop.run_in_executor(
                            caller, first_events_by_grpc, generation.address, _ANSWERS
                        )
                    )
                    events[1].extend(
                        await loop.run_in_executor(
                            caller, first_events_by_http, gateway.address, _ANSWERS
                        )
                    )
    grpc_p50, http_p50 = (median(_p50_ms(one[side]) for one in found) for side in (0, 1))
    grpc_event, http_event = (median(side) * 1e3 for side in events)
    return {
        "grpc_per_s": round(median(one[0].per_s for one in found), 1),
        "http_per_s": round(median(one[1].per_s for one in found), 1),
        "ratio": round(median(one[1].per_s / one[0].per_s for one in found), 3),
        "grpc_p50_ms": round(grpc_p50, 2),
        "http_p50_ms": round(http_p50, 2),
        "more_p50_ms": round(median(_p50_ms(b) - _p50_ms(a) for a, b in found), 2),
        "grpc_first_event_ms": round(grpc_event, 2),
        "http_first_event_ms": round(http_event, 2),
        "callers": callers,
        "documents": documents,
        "rounds": rounds,
        "seconds": seconds,
    }


def _p50_ms(one: Round) -> float:
    return float(np.percentile(one.latencies_s, 50)) * 1e3
