"""`nearline bench swap`: snapshots become current under load; does any caller notice?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nearline import contract as c
from nearline.cli.output import JsonFlag, print_json, print_table
from nearline.cli.processes import (
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    ServiceProcess,
    service_process,
)
from nearline.clients import AdminClient, RetrievalClient
from nearline.errors import NearlineError, NotReady

_COLLECTION = "swap"
_DIM = 64
_K = 20
_SNAPSHOTS = 3
_TIMEOUT_S = 5.0
_SETTLE_S = 30.0
_OPTIONS = c.SearchOptions(k=_K, mode=c.SearchMode.DENSE, payload=frozenset({c.PayloadField.TEXT}))


@dataclass(slots=True)
class _Seen:
    """What the callers saw. epochs: By router."""

    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    partial: int = 0
    epochs: dict[int, set[int]] = field(default_factory=dict)


def bench_swap(
    rate: Annotated[float, typer.Option(min=1, help="Requests per second, all routers.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the run.")] = 60.0,
    every_s: Annotated[
        float, typer.Option("--every", min=0.2, help="Seconds between two promotions.")
    ] = 2.0,
    routers: Annotated[int, typer.Option(min=1, max=8, help="Routers.")] = 2,
    replicas: Annotated[
        int, typer.Option(min=0, max=8, help="Shard servers; 0: the shards run in the routers.")
    ] = 2,
    shards: Annotated[int, typer.Option(min=1, max=16, help="Shards that each holds.")] = 2,
    documents: Annotated[int, typer.Option(min=100, help="Documents of a snapshot.")] = 5_000,
    drain_s: Annotated[
        float, typer.Option("--drain", min=0.1, help="Seconds until an old one is unloaded.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(help="Seed of vectors and queries.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Swap snapshots under an open loop of requests; count what failed and what was mixed.

    Three snapshots take turns. Every text of one carries its stamp, so an answer with two stamps,
    or with another one than that of the snapshot it names, was not answered from one snapshot.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        store = Path(folder) / "store"
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(documents + 200, _DIM)).astype(np.float32)
        stamps = asyncio.run(_build(store, vectors[200:], shards))
        record = asyncio.run(
            _measure(store, stamps, vectors[:200], rate, seconds, every_s, routers, replicas,
                     shards, drain_s)
        )  # fmt: skip
    if as_json:
        print_json(record)
    else:
        print_table(("figure", "value"), record.items())


async def _build(
    store: Path, vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]], shards: int
) -> dict[str, str]:
    """Builds the snapshots and promotes the first; gives the stamp of each by its id."""
    from index_builder.pipeline import build_snapshot
    from index_builder.records import BuildOptions

    stamps = {}
    for number in range(_SNAPSHOTS):
        stamp = f"stamp-{number}"
        items = [
            c.Item(id=f"d{row:06d}", text=f"{stamp} document {row}", vector=vector)
            for row, vector in enumerate(vectors)
        ]
        options = BuildOptions(
            store=str(store), collection=_COLLECTION, shards=shards, promote=number == 0
        )
        stamps[(await build_snapshot(items, options)).snapshot_id] = stamp
    return stamps


async def _measure(
    store: Path,
    stamps: dict[str, str],
    queries: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    rate: float,
    seconds: float,
    every_s: float,
    routers: int,
    replicas: int,
    shards: int,
    drain_s: float,
) -> dict[str, object]:
    asked = [c.Query(vector=row) for row in queries]
    seen = _Seen()
    async with (
        _services(store, routers, replicas, shards, drain_s) as services,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(RetrievalClient(one.address)) for one in services
        ]
        admins = [await stack.enter_async_context(AdminClient(one.address)) for one in services]
        for client in clients:
            await client.search(asked[0], _OPTIONS, collection=_COLLECTION)
        swaps = asyncio.ensure_future(_swap(admins, list(stamps), seconds, every_s))
        await _open_loop(clients, asked, stamps, seen, rate, seconds)
        last = await swaps
        await _reached(admins, last)
    spent = np.array(seen.latencies_s or [np.nan]) * 1e3
    failed = sum(seen.errors.values())
    return {
        "requests": len(seen.latencies_s) + failed,
        "failed": failed,
        "mixed": seen.mixed,
        "partial": seen.partial,
        "flips": last - 1,
        "flips_seen": min(len(epochs) for epochs in seen.epochs.values()) - 1,
        "p50_ms": round(float(np.percentile(spent, 50)), 3),
        "p99_ms": round(float(np.percentile(spent, 99)), 3),
        "max_ms": round(float(spent.max()), 3),
        "errors": dict(seen.errors),
        "rate": rate,
        "seconds": seconds,
        "every_s": every_s,
        "routers": routers,
        "replicas": replicas,
        "shards": shards,
    }


async def _open_loop(
    clients: Sequence[RetrievalClient],
    queries: Sequence[c.Query],
    stamps: dict[str, str],
    seen: _Seen,
    rate: float,
    seconds: float,
) -> None:
    loop = asyncio.get_running_loop()

    async def ask(router: int, query: c.Query, due: float) -> None:
        try:
            reply = await clients[router].search(
                query, _OPTIONS, collection=_COLLECTION, timeout_s=_TIMEOUT_S
            )
        except NearlineError as error:
            seen.errors[type(error).__name__] += 1
            return
        seen.latencies_s.append(loop.time() - due)
        seen.epochs.setdefault(router, set()).add(reply.info.epoch)
        found = {(hit.text or "").partition(" ")[0] for hit in reply.hits}
        seen.mixed += found != {stamps[reply.info.snapshot_id]}
        seen.partial += bool(reply.info.coverage.missing_shards)

    start = loop.time()
    async with asyncio.TaskGroup() as running:
        for number, query in enumerate(itertools.cycle(queries)):
            if number >= rate * seconds:
                break
            due = start + number / rate
            await asyncio.sleep(due - loop.time())
            running.create_task(ask(number % len(clients), query, due))


async def _swap(
    admins: Sequence[AdminClient], snapshot_ids: Sequence[str], seconds: float, every_s: float
) -> int:
    """Promotes the next snapshot again and again, each time by another router; gives the epoch."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    epoch = 1
    for number in itertools.count(1):
        due = start + number * every_s
        # The last one still has time to come into force under load.
        if due > start + seconds - every_s / 2:
            return epoch
        await asyncio.sleep(due - loop.time())
        snapshot_id = snapshot_ids[number % len(snapshot_ids)]
        admin = admins[number % len(admins)]
        record = await admin.promote(snapshot_id, _COLLECTION, why="bench swap")
        epoch = record.epoch
    raise AssertionError("itertools.count ended")


async def _reached(admins: Sequence[AdminClient], epoch: int) -> None:
    """Waits until every router serves the last record."""
    found = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_S):
            while True:
                status = [(await admin.serving_status()).collections[0] for admin in admins]
                if all(one.epoch == epoch for one in status):
                    return
                found = ", ".join(f"{one.epoch} {one.problem}" for one in status)
                await asyncio.sleep(0.1)
    raise NotReady(f"{_SETTLE_S:g} s after the last promotion epoch {epoch} is not served: {found}")


@contextlib.asynccontextmanager
async def _services(
    store: Path, routers: int, replicas: int, shards: int, drain_s: float
) -> AsyncIterator[list[ServiceProcess]]:
    given = ["--store", str(store), "--snapshot-drain-s", str(drain_s), "--drain-s", "0"]
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                service_process("retrieval.shard_server", given, ready_services=SHARD_SERVICES)
            )
            for _ in range(replicas)
        ]
        held = ",".join(one.address for one in servers)
        topology = ";".join(f"{number}={held}" for number in range(shards))
        remote = ["--shards", topology] if servers else []
        yield [
            await stack.enter_async_context(
                service_process(
                    "retrieval",
                    [*given, *remote],
                    ready_services=RETRIEVAL_SERVICES,
                )
            )
            for _ in range(routers)
        ]
