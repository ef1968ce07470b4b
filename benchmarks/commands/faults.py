"""`nearline bench faults`: searches while shard servers are killed and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import NearlineError, ShardsUnavailable
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.processes import (
    SHARD_SERVICES,
    ServiceProcess,
    free_port,
    retrieval_process,
    start_service,
)
from nearline_cli.terminal.output import JsonFlag, print_json, print_table

_SHARDS = 2
_REPLICAS = 2
_DOCUMENTS = 4_000
_DIM = 64
_POLL_S = 0.05
_ONLY_IDS = c.SearchOptions(payload=frozenset())
_WHOLE = replace(_ONLY_IDS, require_full_coverage=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLoad:
    """Load of searches in an open loop."""

    rate: float
    seconds: float
    timeout_s: float


@dataclass(slots=True)
class PhaseResult:
    """Results of the searches of one phase.

    latencies_s: Of all searches, including failed ones, from the time each was due. lowest: Minimum
        coverage of a reply, 0..1.
    """

    latencies_s: list[float] = field(default_factory=list)
    failed: int = 0
    lowest: float = 1.0


def bench_faults(
    rate: Annotated[float, typer.Option(min=1, help="Searches per second.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per phase.")] = 6.0,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.01, help="Timeout of a search in seconds.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the vectors.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Kill, stop and restart shard servers under load; two shards with two replicas each.

    For example: nearline bench faults --rate 100 --seconds 6

    Prints one row per phase. With one replica of each shard left, no search should fail or miss a
    shard, and p99 should stay below the timeout. With both replicas of a shard gone, replies should
    have lower coverage, and a caller that requires full coverage should get an error.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-faults-") as folder:
        matrix = np.random.default_rng(seed).standard_normal((_DOCUMENTS, _DIM), np.float32)
        asyncio.run(_build(Path(folder), matrix))
        load = SearchLoad(rate=rate, seconds=seconds, timeout_s=timeout_s)
        rows: list[dict[str, object]] = []

        def report(row: dict[str, object]) -> None:
            rows.append(row)
            if as_json:
                print_json(row)

        asyncio.run(_run(Path(folder), matrix[:256], load, report))
    if not as_json:
        names = list(dict.fromkeys(name for row in rows for name in row))
        print_table(names, [[row.get(name, "") for name in names] for row in rows])


async def _build(store: Path, matrix: NDArray[np.float32]) -> None:
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    documents = (c.Item(id=f"d{row:05d}", vector=vector) for row, vector in enumerate(matrix))
    await build_snapshot(documents, BuildOptions(store=str(store), shards=_SHARDS))


async def _run(
    store: Path,
    matrix: NDArray[np.float32],
    load: SearchLoad,
    report: Callable[[dict[str, object]], None],
) -> None:
    queries = [c.Query(vector=row) for row in matrix]
    async with (
        _Cluster(store) as cluster,
        retrieval_process(store, ["--shards", cluster.topology]) as router,
        RetrievalClient(router.address) as client,
    ):
        # Opens connections, and runs everything once.
        await client.search(queries[0], _ONLY_IDS, timeout_s=10.0)

        async def phase(
            name: str, act: Callable[[], Awaitable[dict[str, object]]] = _nothing
        ) -> None:
            acting = asyncio.ensure_future(act())
            found = await _search(client, queries, load)
            report(_row(name, found, load) | await acting)

        async def kill_both() -> dict[str, object]:
            await cluster.kill(0, 1)
            return {"full_coverage_refused": await _refused(client, queries[0], load.timeout_s)}

        async def both_back() -> dict[str, object]:
            await asyncio.gather(cluster.start(0, 0), cluster.start(0, 1))
            return {"recovered_s": await _recovery_s(client, queries[0], load.timeout_s)}

        await phase("steady")
        await phase("one replica killed", lambda: cluster.kill(0, 0))
        await phase("both replicas killed", kill_both)
        await phase("both back", both_back)
        await phase("one replica stopped", lambda: cluster.signal(1, 0, signal.SIGSTOP))
        await phase("replica continues", lambda: cluster.signal(1, 0, signal.SIGCONT))


class _Cluster:
    """The shard servers, by shard and replica, at fixed ports."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._ports = {
            (shard, replica): free_port()
            for shard in range(_SHARDS)
            for replica in range(_REPLICAS)
        }
        self._running: dict[tuple[int, int], ServiceProcess] = {}
        self.topology = ";".join(
            f"{shard}="
            + ",".join(f"127.0.0.1:{self._ports[shard, one]}" for one in range(_REPLICAS))
            for shard in range(_SHARDS)
        )

    async def __aenter__(self) -> _Cluster:
        try:
            await asyncio.gather(*(self.start(*place) for place in self._ports))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stop()

    async def start(self, shard: int, replica: int) -> None:
        port = str(self._ports[shard, replica])
        self._running[shard, replica] = await start_service(
            "retrieval.shard_server",
            ["--store", str(self._store), "--shard", str(shard), "--port", port, "--drain-s", "0"],
            ready_services=SHARD_SERVICES,
            name=f"shard {shard}, replica {replica}",
        )

    async def kill(self, shard: int, replica: int) -> dict[str, object]:
        process = self._running.pop((shard, replica))
        os.kill(process.pid, signal.SIGKILL)
        await process.stop()
        return {}

    async def signal(self, shard: int, replica: int, number: signal.Signals) -> dict[str, object]:
        os.kill(self._running[shard, replica].pid, number)
        return {}

    async def _stop(self) -> None:
        for process in self._running.values():
            # A stopped process would not receive the request to end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
        await asyncio.gather(*(process.stop() for process in self._running.values()))


async def _search(
    client: RetrievalClient, queries: Sequence[c.Query], load: SearchLoad
) -> PhaseResult:
    loop = asyncio.get_running_loop()
    found = PhaseResult()

    async def send(number: int, due: float) -> None:
        query = queries[number % len(queries)]
        try:
            reply = await client.search(query, _ONLY_IDS, timeout_s=load.timeout_s)
        except NearlineError:
            found.failed += 1
        else:
            coverage = reply.info.coverage
            found.lowest = min(found.lowest, coverage.shards_answered / coverage.shards_total)
        found.latencies_s.append(loop.time() - due)

    await run_open_loop(load.rate, range(round(load.rate * load.seconds)), send)
    return found


async def _refused(client: RetrievalClient, query: c.Query, timeout_s: float) -> bool:
    """Returns whether a caller that requires every shard gets the error for it."""
    try:
        await client.search(query, _WHOLE, timeout_s=timeout_s)
    except ShardsUnavailable:
        return True
    return False


async def _recovery_s(client: RetrievalClient, query: c.Query, timeout_s: float) -> float:
    """Waits until a reply covers every shard again; returns the seconds."""
    start = time.perf_counter()
    while (await client.search(query, _ONLY_IDS, timeout_s=timeout_s)).info.coverage.missing_shards:
        await asyncio.sleep(_POLL_S)
    return round(time.perf_counter() - start, 3)


async def _nothing() -> dict[str, object]:
    return {}


def _row(name: str, found: PhaseResult, load: SearchLoad) -> dict[str, object]:
    latencies_ms = np.array(found.latencies_s) * 1e3
    return {
        "phase": name,
        "requests": len(found.latencies_s),
        "failed": found.failed,
        "min_coverage": round(found.lowest, 3),
        "p50_ms": round(float(np.percentile(latencies_ms, 50)), 3),
        "p99_ms": round(float(np.percentile(latencies_ms, 99)), 3),
        "deadline_ms": round(load.timeout_s * 1e3, 3),
    }
