"""`nearline bench recommend`: recommendations with and without caches, compared with an empty
call.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import numpy as np
import typer

from benchmarks.baselines.processes import minimal_server, single_process_pool
from benchmarks.workloads.prepared_calls import (
    CallResults,
    call_closed_loop,
    call_each,
    call_open_loop,
)
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.times import from_us
from nearline.v1 import retrieval_pb2
from nearline_cli.local.processes import RETRIEVAL_SERVICES, redis_process, service_process
from nearline_cli.terminal.output import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from index_builder.interactions.records import Interactions

_METHOD = "/nearline.v1.RetrievalService/Recommend"
_DAY_S = 86_400
_NOW_S = int(time.time())
# Users in the training data of the snapshot; the state of other users is only in Redis.
_LEARNED_USERS = 20_000
_DIM = 8
# Requests that are sent repeatedly.
_REQUESTED = 20_000
_R = TypeVar("_R")


class RecommendBench(NamedTuple):
    """Options of the benchmark."""

    items: Annotated[int, typer.Option(min=1_000, help="Number of items in the catalogue.")] = (
        50_000
    )
    users: Annotated[
        int, typer.Option(min=100, help="Number of users with a history in Redis.")
    ] = 100_000
    events: Annotated[int, typer.Option(min=1, help="Interactions per user.")] = 10
    near_share: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Share of lists cached in the process.")
    ] = 0.05
    n: Annotated[int, typer.Option("-n", min=1, max=100, help="Items per list.")] = 20
    concurrency: Annotated[int, typer.Option(min=1, help="Callers in a closed loop.")] = 8
    rate: Annotated[float, typer.Option(min=1, help="Requests per second without caches.")] = 200.0
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per round.")] = 10.0
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each kind, alternating.")] = 3
    seed: Annotated[int, typer.Option(help="Seed of the synthetic data.")] = 0


def bench_recommend(*, bench: RecommendBench, as_json: JsonFlag = False) -> None:
    """Request lists for an item page, for known users, without items that they already had.

    For example: nearline bench recommend --items 50000 --users 100000

    Items are requested by a Zipf law with exponent 1. `hot`: every list was requested before, and
    is cached in the process or in Redis. `cold`: no list is cached; requests come at a fixed rate.
    `echo` is a call that does nothing; `redis_get` reads the state of one user. All rounds run in
    turn.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        rows = asyncio.run(_measure(Path(folder), bench))
    if as_json:
        for row in rows:
            print_json(row)
    else:
        names = list(rows[0])
        print_table(names, [[row[name] for name in names] for row in rows])


async def _measure(folder: Path, bench: RecommendBench) -> list[dict[str, object]]:
    items, users, n = bench.items, bench.users, bench.n
    concurrency, seconds = bench.concurrency, bench.seconds
    rng = np.random.default_rng(bench.seed)
    had = _drawn(rng, items, users * bench.events).reshape(users, bench.events)
    await _build(folder / "store", items, had, bench.seed)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = await enter(redis_process(folder / "redis"))
        near = str(max(1, int(items * bench.near_share)))
        router = await enter(
            service_process(
                "retrieval",
                ["--store", str(folder / "store"), "--redis", url, "--hot-lists", near],
                ready_services=RETRIEVAL_SERVICES,
            )
        )
        echo = await enter(minimal_server("benchmarks.baselines.echo_server"))
        caller = stack.enter_context(single_process_pool())
        await _record(router.address, had)
        requested = _drawn(rng, items, _REQUESTED)
        hot = _requests(rng.integers(0, users, len(requested)), requested, n)
        await _in(caller, call_each, router.address, _METHOD, hot, concurrency)
        # Requests for different attributes are different lists, which are not cached yet.
        uncached = rng.permutation(items)
        found: dict[str, list[CallResults]] = {"hot": [], "cold": [], "echo": [], "redis_get": []}
        size = int(bench.rate * seconds)
        for number in range(bench.rounds):
            fresh = uncached[number * size : (number + 1) * size]
            cold = _requests(rng.integers(0, users, len(fresh)), fresh, n, attributes=True)
            for path, address in (("echo", echo), ("hot", router.address)):
                calls = await _in(
                    caller, call_closed_loop, address, _METHOD, hot, concurrency, seconds
                )
                found[path].append(calls)
            found["cold"].append(
                await _in(caller, call_open_loop, router.address, _METHOD, cold, bench.rate)
            )
            found["redis_get"].append(
                await _in(caller, read_states, url, users, concurrency, seconds)
            )
    return [_row(path, calls) for path, calls in found.items()]


def _row(path: str, rounds: Sequence[CallResults]) -> dict[str, object]:
    """Returns the figures of a path; times are medians over rounds."""
    levels: Counter[str] = Counter()
    if path in ("hot", "cold"):
        for calls in rounds:
            for _, reply in calls.replies:
                info = retrieval_pb2.RecommendResponse.FromString(reply).info
                levels[info.served_by.reason or "live"] += 1
    total = sum(levels.values()) or 1

    def median(of: Any) -> float:
        return float(np.median([of(calls) for calls in rounds]))

    return {
        "path": path,
        "qps": round(median(lambda calls: calls.qps), 1),
        "p50_ms": round(median(lambda calls: np.percentile(calls.latencies_s, 50)) * 1e3, 3),
        "p99_ms": round(median(lambda calls: np.percentile(calls.latencies_s, 99)) * 1e3, 3),
        "calls": sum(len(calls.latencies_s) for calls in rounds),
        **{f"{name}_ratio": round(levels[name] / total, 4) for name in ("near", "redis", "live")},
    }


def _drawn(rng: np.random.Generator, items: int, size: int) -> NDArray[np.int64]:
    """Draws items by a Zipf law with exponent 1."""
    shares = 1 / np.arange(1, items + 1)
    return rng.choice(items, size, p=shares / shares.sum())


def _item(number: int) -> str:
    return f"item-{number:06d}"


def _user(number: int) -> str:
    return f"user-{number:07d}"


def _requests(
    users: NDArray[np.int64], items: NDArray[np.int64], n: int, *, attributes: bool = False
) -> list[bytes]:
    payload = [retrieval_pb2.PAYLOAD_FIELD_TITLE]
    if attributes:
        payload.append(retrieval_pb2.PAYLOAD_FIELD_ATTRIBUTES)
    return [
        retrieval_pb2.RecommendRequest(
            user_id=_user(user), item_ids=[_item(item)], surface="item_page", n=n, payload=payload
        ).SerializeToString()
        for user, item in zip(users.tolist(), items.tolist(), strict=True)
    ]


async def _build(store: Path, items: int, had: NDArray[np.int64], seed: int) -> None:
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.builder import build_snapshot

    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((items, _DIM)).astype(np.float32)
    documents = [
        c.Item(id=_item(number), title=f"The title of item {number}", vector=vectors[number])
        for number in range(items)
    ]
    options = BuildOptions(
        store=str(store),
        lexical=False,
        golden_queries=0,
        title_only=True,
        index=IndexOptions(factory="Flat"),
        training=TrainingOptions(interactions=_interactions(items, had[:_LEARNED_USERS], rng)),
    )
    await build_snapshot(documents, options)


def _interactions(items: int, had: NDArray[np.int64], rng: np.random.Generator) -> Interactions:
    """Returns the training interactions; they include every item, because others would be new."""
    from index_builder.interactions.records import Interactions

    users = len(had)
    user = np.concatenate(
        [np.repeat(np.arange(users), had.shape[1]), rng.integers(0, users, items)]
    )
    item = np.concatenate([had.ravel(), np.arange(items)])
    time_s = _NOW_S - rng.integers(0, 90 * _DAY_S, len(user))
    return Interactions(
        [_user(number) for number in range(users)],
        [_item(number) for number in range(items)],
        user.astype(np.int32),
        item.astype(np.int32),
        time_s.astype(np.int64) * 1_000_000,
        np.ones(len(user), np.float32),
    )


async def _record(address: str, had: NDArray[np.int64]) -> None:
    """Records the interactions of every user, as an application would."""
    users, events = had.shape
    step = max(1, c.MAX_BATCH // events)
    starts = iter(range(0, users, step))
    async with RetrievalClient(address) as client:

        async def write() -> None:
            for start in starts:
                done = [
                    c.Interaction(
                        item_id=_item(item),
                        user_id=_user(user),
                        time=from_us((_NOW_S - 60 * place) * 1_000_000),
                    )
                    for user in range(start, min(start + step, users))
                    for place, item in enumerate(had[user].tolist())
                ]
                await client.record_interactions(done, timeout_s=60.0)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(write())


def read_states(url: str, users: int, concurrency: int, seconds: float) -> CallResults:
    """Reads states of users in a closed loop, as the router does."""
    return asyncio.run(_read_states(url, users, concurrency, seconds))


async def _read_states(url: str, users: int, concurrency: int, seconds: float) -> CallResults:
    from retrieval.redis_client.connection import connect
    from retrieval.users.keys import user_keys

    rng = np.random.default_rng(1)
    keys = [user_keys("default", _user(one)).state for one in rng.integers(0, users, 20_000)]
    latencies: list[float] = []
    clock = time.perf_counter
    client = connect(url)
    await client.ping()
    start = clock()

    async def caller(first: int) -> None:
        at = first
        while (now := clock()) < start + seconds:
            await client.hmget(keys[at % len(keys)], "h", "x")
            latencies.append(clock() - now)
            at += concurrency

    await asyncio.gather(*(caller(number) for number in range(concurrency)))
    spent_s = clock() - start
    await client.aclose()
    return CallResults(len(latencies) / spent_s, np.array(latencies), ())


async def _in(caller: ProcessPoolExecutor, what: Any, *arguments: Any) -> Any:
    """Runs a function in the separate process of the callers."""
    return await asyncio.get_running_loop().run_in_executor(caller, partial(what, *arguments))
