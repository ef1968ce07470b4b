"""`nearline bench overload`: what is answered in time when far more is asked than can be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Sequence
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
_CONCURRENCY = 32
_ANSWERS = re.compile(r'^nearline_server_call_seconds_count{code="OK",method="\w+"} (\S+)$', re.M)


class _Round(NamedTuple):
    """Outcomes of one load.

    capacity: Calls per second that callers in a closed loop have answered, just before and after.
    served: Calls that the router counts as answered.
    """

    quiet: LoadResult
    flood: LoadResult
    capacity: float
    served: float

    @property
    def goodput(self) -> float:
        """Calls per second that were answered in time."""
        return _goodput(self.quiet) + _goodput(self.flood)


class OverloadBench(NamedTuple):
    """Options of the benchmark."""

    documents: Annotated[int, typer.Option(min=1_000, help="Documents in the snapshot.")] = 20_000
    times: Annotated[
        str, typer.Option(help="Loads, as multiples of what the router can answer.")
    ] = "3,5"
    deadline: Annotated[float, typer.Option(min=0.01, help="Deadline of a call, seconds.")] = 0.5
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per load.")] = 4.0
    rounds: Annotated[int, typer.Option(min=1, help="Rounds per load.")] = 7
    throttled: Annotated[
        bool,
        typer.Option(
            "--throttled/--unthrottled",
            help="Whether callers send less while they are refused, as Nearline's clients do.",
        ),
    ] = True
    seed: Annotated[int, typer.Option(help="Seed of vectors and interactions.")] = 0


def bench_overload(*, bench: OverloadBench, as_json: JsonFlag = False) -> None:
    """Ask a router for several times of what it can answer, and count what it answers in time.

    Of a hundred calls, 80 are searches for 8 queries, 15 personal lists and 5 writes. The capacity
    is what callers in a closed loop have answered, before and after each round, since the speed of
    a machine varies from minute to minute. In a round two tenants call in an open loop: one asks
    for 0.3 of the capacity, the other floods. The router has the first processor for itself, and
    the callers and Redis have the others.

    Figures, per load, are medians of the rounds: goodput_ratio is what the callers have in time
    compared with the capacity, and quiet_ratio the share of the quiet tenant's calls that is.
    served_ratio is what the router itself counts as answered, before its caller gave up: callers
    share a processor, and are late themselves where they send thousands of calls a second.
    Latencies, of all rounds, include that.
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
                Caller(router.address, keys[name], vectors, bench.deadline, others, bench.throttled)
                for name in ("quiet", "flood")
            )
            with single_process_pool() as one, single_process_pool() as two:
                loop = asyncio.get_running_loop()

                async def capacity() -> float:
                    """Returns the calls per second that callers in a closed loop have answered."""
                    answers = await loop.run_in_executor(
                        one, call_at_once, flood, _CONCURRENCY, bench.seconds / 2
                    )
                    return _goodput(answers)

                async def under_load(times: float, before: float) -> tuple[_Round, float]:
                    rates = (_QUIET_SHARE * before, (times - _QUIET_SHARE) * before)
                    served = await asyncio.to_thread(_answers, port)
                    slow, fast = await asyncio.gather(
                        loop.run_in_executor(one, call_at_rate, quiet, rates[0], bench.seconds),
                        loop.run_in_executor(two, call_at_rate, flood, rates[1], bench.seconds),
                    )
                    served = await asyncio.to_thread(_answers, port) - served
                    # The speed of a machine varies from minute to minute.
                    after = await capacity()
                    return _Round(slow, fast, (before + after) / 2, served), after

                # The first warms up.
                await capacity()
                latest = await capacity()
                memory = router.rss_bytes()
                for times in map(float, bench.times.split(",")):
                    rounds = []
                    for _ in range(bench.rounds):
                        ended, latest = await under_load(times, latest)
                        rounds.append(ended)
                    record |= _figures(f"{times:g}x", rounds)
                record["rss_ratio"] = round(router.rss_bytes() / memory, 3)
    return record | {
        "deadline_ms": bench.deadline * 1e3,
        "documents": bench.documents,
        "seconds": bench.seconds,
        "cpus": len(others) + 1,
    }


def _figures(name: str, rounds: Sequence[_Round]) -> dict[str, object]:
    goodputs = [one.goodput / one.capacity for one in rounds]
    quiets = [len(one.quiet.latencies_s) / one.quiet.asked for one in rounds]
    served = [one.served / one.flood.seconds / one.capacity for one in rounds]
    both = [result for one in rounds for result in (one.quiet, one.flood)]
    answered = np.concatenate([result.latencies_s for result in both])
    seconds = sum(one.flood.seconds for one in rounds)
    codes = {
        "quiet": sum((Counter(one.quiet.codes) for one in rounds), Counter()),
        "flood": sum((Counter(one.flood.codes) for one in rounds), Counter()),
    }
    return {
        f"goodput_ratio_{name}": round(float(np.median(goodputs)), 3),
        f"goodput_ratios_{name}": [round(ratio, 2) for ratio in sorted(goodputs)],
        f"quiet_ratio_{name}": round(float(np.median(quiets)), 4),
        f"quiet_ratios_{name}": [round(ratio, 3) for ratio in sorted(quiets)],
        f"served_ratio_{name}": round(float(np.median(served)), 3),
        f"p50_ms_{name}": round(float(np.percentile(answered, 50)) * 1e3, 1),
        f"p99_ms_{name}": round(float(np.percentile(answered, 99)) * 1e3, 1),
        f"asked_per_s_{name}": round(sum(result.asked for result in both) / seconds, 1),
        f"capacity_per_s_{name}": round(float(np.median([one.capacity for one in rounds])), 1),
        f"codes_{name}": codes,
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
