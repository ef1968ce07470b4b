"""Lists of the home surface from catalogues of more and more items and users."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.baselines.processes import (
    RunningRouter,
    cpu_seconds,
    resident_bytes,
    router_process,
    run_in,
    single_process_pool,
)
from benchmarks.scaling_parts.measured_rows import LISTS, Row
from benchmarks.scaling_parts.search_curve import Turns
from benchmarks.workloads.list_catalogue import Catalogue, build_catalogue
from benchmarks.workloads.list_requests import HOME, METHOD, ListRequests, record_recent
from benchmarks.workloads.prepared_calls import (
    CallResults,
    call_each,
    call_open_loop,
    percentile_ms,
)
from nearline import contract as c
from nearline.store.snapshot import Store
from nearline_cli.local.processes import redis_process

COLD, HOT = "cold", "hot"
# Items of a list, and callers of the warm-up.
_N, _CALLERS = 20, 8
# Cached lists cost so little that they are requested more often.
_HOT_TIMES = 5


class ListLoad(NamedTuple):
    """Cold lists per second in an open loop (hot ones: five times as many), and the turns."""

    rate: float
    turns: Turns


def list_subject(catalogue: Catalogue, path: str) -> Row:
    """Returns what a row is about. path: COLD (nothing cached) or HOT (requested before)."""
    return {
        "kind": LISTS,
        "items": catalogue.items,
        "users": catalogue.users,
        "shards": catalogue.shards,
        "path": path,
    }


async def list_curve(work: Path, catalogue: Catalogue, load: ListLoad) -> AsyncIterator[Row]:
    """Measures a catalogue whose shards have a process each; yields a row for COLD and HOT.

    `router_us`, `shards_us` and `redis_us` are microseconds of CPU a list. `snapshot_bytes` is the
    size of the shards' files: what they hold resident once all of it was read.
    """
    folder = work / f"lists-{catalogue.items}-{catalogue.users}-{catalogue.shards}"
    if not folder.exists():
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        # In a process of its own, which gives its memory back.
        with single_process_pool() as builder:
            await run_in(builder, _build, new, catalogue)
        new.rename(folder)
    rng = np.random.default_rng(catalogue.seed)
    size = max(1, int(load.rate * load.turns.seconds))
    wanted = ListRequests(
        rng,
        items=catalogue.items,
        users=catalogue.users,
        surface=HOME,
        n=_N,
        count=size * load.turns.rounds,
    )
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(_empty_folder(work / ".redis"))
        url = await stack.enter_async_context(redis_process(redis))
        words = ("--store", str(folder), "--redis", url)
        router = await stack.enter_async_context(
            router_process(words, catalogue.shards, catalogue.shards)
        )
        caller = stack.enter_context(single_process_pool())
        await record_recent(router.address, rng, wanted.users, catalogue.items, int(time.time()))
        await run_in(caller, call_each, router.address, METHOD, wanted.hot, _CALLERS)
        hot = [wanted.hot[number % len(wanted.hot)] for number in range(size * _HOT_TIMES)]
        for path in (COLD, HOT):
            batches = [
                wanted.cold[number * size : (number + 1) * size] if path == COLD else hot
                for number in range(load.turns.rounds)
            ]
            rate = load.rate if path == COLD else load.rate * _HOT_TIMES
            yield {
                **list_subject(catalogue, path),
                "rate": rate,
                **await _measure(caller, router, url, batches, rate),
                "router_rss_bytes": router.router_rss_bytes(),
                "shards_rss_bytes": resident_bytes(router.pids[:-1]),
                "snapshot_bytes": _snapshot_bytes(folder),
            }


async def _measure(
    caller: ProcessPoolExecutor,
    router: RunningRouter,
    redis: str,
    batches: list[list[bytes]],
    rate: float,
) -> Row:
    found: list[CallResults] = []
    spent: list[list[float]] = []
    for batch in batches:
        before = await _cpu_seconds(router, redis)
        calls = await run_in(caller, call_open_loop, router.address, METHOD, batch, rate)
        after = await _cpu_seconds(router, redis)
        found.append(calls)
        spent.append(
            [
                (now - then) / len(calls.latencies_s) * 1e6
                for then, now in zip(before, after, strict=True)
            ]
        )
    router_us, shards_us, redis_us = (round(median(one), 1) for one in zip(*spent, strict=True))

    return {
        "qps": round(median(calls.qps for calls in found), 1),
        "p50_ms": percentile_ms(found, 50),
        "p99_ms": percentile_ms(found, 99),
        "router_us": router_us,
        "shards_us": shards_us,
        "redis_us": redis_us,
        "lists": sum(map(len, batches)),
    }


async def _cpu_seconds(router: RunningRouter, redis: str) -> tuple[float, float, float]:
    """Returns the seconds of CPU of the router, the shards and Redis since their start."""
    from retrieval.redis_client.connection import connect

    async with connect(redis) as client:
        info: dict[str, Any] = await client.info("cpu")
    redis_s = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
    return cpu_seconds(router.pids[-1:]), cpu_seconds(router.pids[:-1]), redis_s


def _build(store: Path, catalogue: Catalogue) -> None:
    asyncio.run(build_catalogue(store, catalogue, int(time.time())))


@contextlib.contextmanager
def _empty_folder(folder: Path) -> Any:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _snapshot_bytes(store_folder: Path) -> int:
    """Returns the size of the shards' files of the current snapshot."""
    store = Store(store_folder)
    current = store.alias_in_force(c.DEFAULT_COLLECTION).current
    folder = store.snapshot_folder(c.DEFAULT_COLLECTION, current)
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
