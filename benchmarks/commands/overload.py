"""`nearline bench overload`: what is answered in time when far more is asked than can be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import typer
from numpy.typing import NDArray

from benchmarks.baselines.processes import RunningRouter, router_process, single_process_pool
from benchmarks.workloads.mixed_load import Caller, LoadResult, call_at_once, call_at_rate
from nearline import contract as c
from nearline.access.caller import EVERY
from nearline.access.rights import Right
from nearline_cli.local.key_store import KeyStore
from nearline_cli.local.processes import free_port, redis_process
from nearline_cli.terminal.output import JsonFlag, print_figures

_DIM = 128
_USERS, _EVENTS = 200, 20
_QUIET_SHARE = 0.3
_CONCURRENCIES = (8, 16, 32, 64)
_ANSWERS = re.compile(r'^nearline_server_call_seconds_count{code="OK",method="\w+"} (\S+)$', re.M)


class OverloadBench(NamedTuple):
    """Options of the benchmark."""

    documents: Annotated[int, typer.Option(min=1_000, help="Documents in the snapshot.")] = 20_000
    times: Annotated[
        str, typer.Option(help="Loads, as multiples of what the router can answer.")
    ] = "3,5"
    deadline: Annotated[float, typer.Option(min=0.01, help="Deadline of a call, seconds.")] = 0.5
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per load.")] = 20.0
    seed: Annotated[int, typer.Option(help="Seed of vectors and interactions.")] = 0


def bench_overload(*, bench: OverloadBench, as_json: JsonFlag = False) -> None:
    """Ask a router for several times of what it can answer, and count what it answers in time.

    Of a hundred calls, 80 are searches for 8 queries, 15 personal lists and 5 writes. The peak is
    the most that is answered in time in a closed loop, before and after the load. Then two tenants
    call in an open loop: one asks for 0.3 of the peak, the other floods. The router has the first
    processor for itself, and the callers and Redis have the others.

    Figures, per load: goodput_ratio is what the callers have in time compared with the peak, and
    quiet_ratio the share of the quiet tenant's calls that is. served_ratio is what the router
    itself counts as answered, before its caller gave up: callers share a processor, and are late
    themselves where they send thousands of calls a second. Latencies include that.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        record = asyncio.run(_measure(Path(folder), bench))
    print_figures(record, as_json=as_json)


async def _measure(folder: Path, bench: OverloadBench) -> dict[str, object]:
    rng = np.random.default_rng(bench.seed)
    vectors = rng.normal(size=(bench.documents, _DIM)).astype(np.float32)
    await _build(folder / "store", vectors, rng)
    store = KeyStore(folder / "keys.toml")
    keys = {name: store.create(name, {EVERY: Right.WRITE})[0] for name in ("quiet", "flood")}
    first, *others = sorted(os.sched_getaffinity(0))
    record: dict[str, object] = {}
    async with redis_process(folder / "redis") as url:
        arguments = ("--store", str(folder / "store"), "--redis", url)
        secured = ("--keys", str(folder / "keys.toml"))
        port = free_port()
        watched = ("--metrics-port", str(port))
        async with router_process((*arguments, *secured, *watched), 0) as router:
            if others:
                _pin(router, first)
            quiet, flood = (
                Caller(router.address, keys[name], vectors, bench.deadline, others)
                for name in ("quiet", "flood")
            )
            with single_process_pool() as one, single_process_pool() as two:
                loop = asyncio.get_running_loop()

                async def measure_peak() -> float:
                    return max(
                        [
                            _goodput(
                                await loop.run_in_executor(
                                    one, call_at_once, flood, count, bench.seconds / 4
                                )
                            )
                            for count in _CONCURRENCIES
                        ]
                    )

                # The first warms up.
                await loop.run_in_executor(one, call_at_once, flood, 8, bench.seconds / 4)
                peak = await measure_peak()
                before = router.rss_bytes()
                for times in map(float, bench.times.split(",")):
                    rates = (_QUIET_SHARE * peak, (times - _QUIET_SHARE) * peak)
                    served = await asyncio.to_thread(_answers, port)
                    slow, fast = await asyncio.gather(
                        loop.run_in_executor(one, call_at_rate, quiet, rates[0], bench.seconds),
                        loop.run_in_executor(two, call_at_rate, flood, rates[1], bench.seconds),
                    )
                    served = await asyncio.to_thread(_answers, port) - served
                    # The speed of a machine varies from minute to minute.
                    earlier, peak = peak, await measure_peak()
                    mean = (earlier + peak) / 2
                    record |= _figures(f"{times:g}x", slow, fast, mean)
                    record[f"peak_per_s_{times:g}x"] = round(mean, 1)
                    record[f"served_ratio_{times:g}x"] = round(served / fast.seconds / mean, 3)
                record["rss_ratio"] = round(router.rss_bytes() / before, 3)
    return record | {
        "deadline_ms": bench.deadline * 1e3,
        "documents": bench.documents,
        "seconds": bench.seconds,
        "cpus": len(others) + 1,
    }


def _figures(name: str, quiet: LoadResult, flood: LoadResult, peak: float) -> dict[str, object]:
    answered = np.concatenate([quiet.latencies_s, flood.latencies_s])
    refused = quiet.codes.get("RESOURCE_EXHAUSTED", 0) + flood.codes.get("RESOURCE_EXHAUSTED", 0)
    return {
        f"goodput_ratio_{name}": round((_goodput(quiet) + _goodput(flood)) / peak, 3),
        f"quiet_ratio_{name}": round(len(quiet.latencies_s) / quiet.asked, 4),
        f"p50_ms_{name}": round(float(np.percentile(answered, 50)) * 1e3, 1),
        f"p99_ms_{name}": round(float(np.percentile(answered, 99)) * 1e3, 1),
        f"asked_per_s_{name}": round((quiet.asked + flood.asked) / flood.seconds, 1),
        f"refused_per_s_{name}": round(refused / flood.seconds, 1),
        f"codes_{name}": {"quiet": quiet.codes, "flood": flood.codes},
    }


def _answers(port: int) -> float:
    """Returns the calls that a router has answered."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return sum(map(float, _ANSWERS.findall(text)))


def _goodput(result: LoadResult) -> float:
    """Returns the calls per second that were answered in time: gRPC ends the others."""
    return len(result.latencies_s) / result.seconds


def _pin(router: RunningRouter, cpu: int) -> None:
    """Lets the router run on one processor only."""
    for pid in router.pids:
        for thread in psutil.Process(pid).threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, (cpu,))


async def _build(store: Path, vectors: NDArray[np.float32], rng: np.random.Generator) -> None:
    from index_builder.interactions.records import Interactions
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.builder import build_snapshot

    names = [f"d{row:06d}" for row in range(len(vectors))]
    items = [
        c.Item(id=name, text=f"document {name}", vector=vector)
        for name, vector in zip(names, vectors, strict=True)
    ]
    count = _USERS * _EVENTS
    interactions = Interactions(
        [f"u{number:04d}" for number in range(_USERS)],
        names,
        np.repeat(np.arange(_USERS, dtype=np.int32), _EVENTS),
        rng.integers(0, min(1_000, len(names)), count).astype(np.int32),
        np.arange(count) * 1_000_000,
        np.ones(count, np.float32),
    )
    options = BuildOptions(
        store=str(store),
        index=IndexOptions(factory="HNSW16"),
        lexical=False,
        training=TrainingOptions(interactions=interactions),
    )
    await build_snapshot(items, options)
