"""`nearline bench lists`: lists with and without caches, compared with an empty call."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.baselines.processes import (
    minimal_server,
    router_process,
    run_in,
    single_process_pool,
)
from benchmarks.workloads.figures import median_ms, print_rows
from benchmarks.workloads.list_catalogue import Catalogue, build_catalogue, user_id
from benchmarks.workloads.list_requests import HOME, ITEM_PAGE, METHOD, ListRequests, record_recent
from benchmarks.workloads.prepared_calls import (
    CallResults,
    call_closed_loop,
    call_each,
    call_open_loop,
    closed_loop,
)
from nearline.v1 import retrieval_pb2
from nearline_cli.local.processes import redis_process
from nearline_cli.terminal.output import JsonFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOW_S = int(time.time())
# Connections for each of several routers: of few, the kernel gives some routers far more.
_CONNECTIONS = 32
_LEAD_S = 1.0
# Share of lists that a router keeps in its process; callers in a closed loop.
_NEAR_SHARE, _CALLERS = 0.05, 8
_LEVELS = ("near", "redis", "live")


class Surface(StrEnum):
    """The surfaces that can be measured."""

    HOME = HOME
    ITEM_PAGE = ITEM_PAGE


class RecommendBench(NamedTuple):
    """Options of the benchmark."""

    items: Annotated[int, typer.Option(min=1_000, help="Number of items in the catalogue.")] = (
        50_000
    )
    users: Annotated[
        int, typer.Option(min=1_000, help="Number of users that the snapshot knows.")
    ] = 100_000
    surface: Annotated[Surface, typer.Option(help="What is requested.")] = Surface.ITEM_PAGE
    shards: Annotated[
        int, typer.Option(min=1, max=64, help="Shards. With several, they have processes.")
    ] = 1
    routers: Annotated[
        int, typer.Option(min=1, max=16, help="Router processes that share one port.")
    ] = 1
    rate: Annotated[float, typer.Option(min=1, help="Requests per second without caches.")] = 200.0
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per round.")] = 10.0
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each kind, alternating.")] = 3


def bench_lists(*, bench: RecommendBench, as_json: JsonFlag = False) -> None:
    """Request lists of a surface for known users, without items that they already had.

    For example: nearline bench lists --items 50000 --users 100000 --surface home

    Items are requested by a Zipf law with exponent 1. `hot`: every list was requested before.
    `cold`: no list is cached; requests come at a fixed rate. On the home surface, each of these
    lists is that of another user, from blend, ranker and rules. `echo` is a call that does nothing;
    `redis_get` reads the state of one user. All rounds run in turn. The tables of behaviour are
    made up, as large as those of a training. With several shards, two processes hold them. With
    several routers, compare the throughput of `hot` lists; each router keeps lists of its own.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        rows = asyncio.run(_measure(Path(folder), bench))
    print_rows(rows, as_json=as_json)


async def _measure(folder: Path, bench: RecommendBench) -> list[dict[str, object]]:
    items, seconds = bench.items, bench.seconds
    rng = np.random.default_rng(0)
    catalogue = Catalogue(items, bench.users, bench.shards)
    await build_catalogue(folder / "store", catalogue, _NOW_S)
    size = int(bench.rate * seconds)
    # Routers on one port share out connections, not calls.
    connections = 1 if bench.routers == 1 else _CONNECTIONS * bench.routers
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = await enter(redis_process(folder / "redis"))
        near = str(max(1, int(items * _NEAR_SHARE)))
        router = await enter(
            router_process(
                ["--store", str(folder / "store"), "--redis", url],
                bench.shards if bench.shards > 1 else 0,
                processes=2,
                router_arguments=("--hot-lists", near),
                routers=bench.routers,
            )
        )
        echo = await enter(minimal_server("benchmarks.baselines.minimal_server"))
        caller = stack.enter_context(single_process_pool())
        wanted = ListRequests(
            rng,
            items=items,
            users=bench.users,
            surface=bench.surface.value,
            count=size * bench.rounds,
        )
        await record_recent(router.address, rng, wanted.users, items, _NOW_S)
        await run_in(caller, call_each, router.address, METHOD, wanted.hot, _CALLERS)
        found: dict[str, list[CallResults]] = {"hot": [], "cold": [], "echo": [], "redis_get": []}
        for number in range(bench.rounds):
            for path, address in (("echo", echo.address), ("hot", router.address)):
                # Connections are new, and may reach routers that lack the lists of others.
                call = partial(call_closed_loop, lead_s=_LEAD_S, connections=connections)
                calls = await run_in(caller, call, address, METHOD, wanted.hot, _CALLERS, seconds)
                found[path].append(calls)
            cold = wanted.cold[number * size : (number + 1) * size]
            call = partial(call_open_loop, connections=connections)
            found["cold"].append(
                await run_in(caller, call, router.address, METHOD, cold, bench.rate)
            )
            found["redis_get"].append(
                await run_in(caller, read_states, url, wanted.users, _CALLERS, seconds)
            )
        rss = router.router_rss_bytes()
    sizes = {"items": items, "users": bench.users, "shards": bench.shards}
    return [
        {**_row(path, calls), **sizes, "surface": bench.surface.value, "router_rss_bytes": rss}
        for path, calls in found.items()
    ]


def _row(path: str, rounds: Sequence[CallResults]) -> dict[str, object]:
    """Returns the figures of a path; times are medians over rounds."""
    levels: Counter[str] = Counter()
    if path in ("hot", "cold"):
        for calls in rounds:
            for _, reply in calls.replies:
                info = retrieval_pb2.RecommendResponse.FromString(reply).info
                levels[info.served_by.reason or "live"] += 1
    total = sum(levels.values()) or 1
    latencies = [calls.latencies_s for calls in rounds]
    return {
        "path": path,
        "qps": round(median(calls.qps for calls in rounds), 1),
        "p50_ms": median_ms(latencies, 50),
        "p99_ms": median_ms(latencies, 99),
        "calls": sum(len(calls.latencies_s) for calls in rounds),
        "failed": sum(calls.failed for calls in rounds),
        **{f"{name}_ratio": round(levels[name] / total, 4) for name in _LEVELS},
        # Shorter lists, and those that lack a part.
        "other_ratio": round(sum(levels[one] for one in levels.keys() - set(_LEVELS)) / total, 4),
    }


def read_states(
    url: str, users: NDArray[np.int64], concurrency: int, seconds: float
) -> CallResults:
    """Reads states of users in a closed loop, as the router does."""
    from retrieval.redis_client.connection import connect
    from retrieval.users.keys import user_keys

    keys = [user_keys("default", user_id(int(one))).state for one in users]

    async def read() -> CallResults:
        client = connect(url)
        await client.ping()
        calls = await closed_loop(
            lambda number: client.hmget(keys[number], "h", "x"),
            itertools.cycle(range(len(keys))),
            concurrency,
            seconds,
        )
        await client.aclose()
        return calls

    return asyncio.run(read())
