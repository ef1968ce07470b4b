"""`nearline bench failover`: lists and writes while a node of a Redis Cluster is killed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.workloads.redis_cluster import LocalCluster, local_cluster
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import NearlineError
from nearline.store.snapshot import PARTITIONS, Store
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.processes import retrieval_process
from nearline_cli.terminal.output import JsonFlag, print_figures

_DIM = 32
_USERS = 1_000
_EVENTS = 5
_WRITE_TIMEOUT_S = 8.0
_PAGE = 512
_CONNECTIONS = 16


class FailoverBench(NamedTuple):
    """Options of the benchmark."""

    items: Annotated[int, typer.Option(min=100, help="Items of the collection.")] = 2_000
    lists: Annotated[float, typer.Option(min=1, help="Lists per second.")] = 200.0
    writes: Annotated[
        float, typer.Option(min=2, help="Writes per second: half upserts, half interactions.")
    ] = 100.0
    seconds: Annotated[
        float, typer.Option(min=1, help="Seconds before, during and after the failure, each.")
    ] = 20.0
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.01, help="Timeout of a list in seconds.")
    ] = 1.0
    node_timeout_ms: Annotated[
        int, typer.Option(min=100, help="cluster-node-timeout of the servers, in milliseconds.")
    ] = 5_000
    seed: Annotated[int, typer.Option(help="Seed of vectors, users and items.")] = 0


@dataclass(slots=True)
class _Results:
    """What became of the requests; times in seconds, from the time each was due.

    failed_lists: By phase: before the failure, during it, and after the node is back.
    changes: Version and item of each acknowledged upsert. events: User and event id of each
    acknowledged interaction.
    """

    lists_s: list[float] = field(default_factory=list)
    failed_lists: Counter[int] = field(default_factory=Counter)
    writes_s: list[float] = field(default_factory=list)
    refused: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    acknowledged_at: list[float] = field(default_factory=list)


def bench_failover(*, bench: FailoverBench, as_json: JsonFlag = False) -> None:
    """Kill a primary of a Redis Cluster under load; three primaries, each with a replica.

    For example: nearline bench failover --lists 200 --writes 100 --seconds 20

    The list of every item is cached first. A third through, the node is killed (SIGKILL), and its
    replica takes over. Two thirds through, it is started again, as a replica. Refused writes are
    not repeated. In the end, every acknowledged upsert is looked for in the change log, and every
    acknowledged interaction at its user. No acknowledged write should be lost, and 99.9 % of the
    lists should be answered.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        record = asyncio.run(_measure(Path(folder), bench))
    print_figures(record, as_json=as_json)


async def _measure(folder: Path, bench: FailoverBench) -> dict[str, object]:
    rng = np.random.default_rng(bench.seed)
    await _build(folder, rng.standard_normal((bench.items, _DIM)).astype(np.float32))
    async with (
        local_cluster(replicas=True, node_timeout_ms=bench.node_timeout_ms) as cluster,
        retrieval_process(folder, ["--redis", cluster.url]) as router,
        RetrievalClient(router.address) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        # As many processes of applications would: a connection takes a limited number of calls.
        readers, writers = [
            [
                await stack.enter_async_context(RetrievalClient(router.address))
                for _ in range(_CONNECTIONS)
            ]
            for _ in range(2)
        ]
        await _record(client, rng, bench.items)
        await _warm(readers, bench.items)
        results = _Results()
        killing = asyncio.create_task(_kill(cluster, bench.seconds))
        total_s = 3 * bench.seconds
        await asyncio.gather(
            _ask(readers, bench, results, total_s), _write(writers, bench, results, total_s)
        )
        promoted_s = await killing
        lost_changes = await _lost_changes(folder, cluster.url, results)
        lost_events = await _lost_events(client, results)
    lists_ms = np.array(results.lists_s) * 1e3
    writes_ms = np.array(results.writes_s) * 1e3
    gaps = np.diff(results.acknowledged_at)
    answered = len(lists_ms) - results.failed_lists.total()
    return {
        "lost_acknowledged": lost_changes + lost_events,
        "lists_answered": round(answered / len(lists_ms), 5),
        "lists_failed_before_during_after": [results.failed_lists[one] for one in range(3)],
        "lists": len(lists_ms),
        "lists_p50_ms": round(float(np.percentile(lists_ms, 50)), 2),
        "lists_p99_ms": round(float(np.percentile(lists_ms, 99)), 2),
        "writes_acknowledged": len(results.changes) + len(results.events),
        "writes_refused": results.refused,
        "writes_p50_ms": round(float(np.percentile(writes_ms, 50)), 2),
        "writes_p99_ms": round(float(np.percentile(writes_ms, 99)), 2),
        "promoted_s": round(promoted_s, 2),
        "longest_without_acknowledgement_s": round(float(gaps.max()), 2),
        "node_timeout_ms": bench.node_timeout_ms,
        "lists_per_s": bench.lists,
        "writes_per_s": bench.writes,
    }


async def _build(store: Path, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot

    documents = [
        c.Item(id=_item(number), title=f"The title of item {number}", vector=vector)
        for number, vector in enumerate(vectors)
    ]
    options = BuildOptions(
        store=str(store),
        lexical=False,
        golden_queries=0,
        title_only=True,
        index=IndexOptions(factory="Flat"),
    )
    await build_snapshot(documents, options)


async def _record(client: RetrievalClient, rng: np.random.Generator, items: int) -> None:
    """Gives every user a few interactions."""
    for start in range(0, _USERS, 100):
        events = [
            c.Interaction(item_id=_item(int(item)), user_id=f"user-{user}")
            for user in range(start, start + 100)
            for item in rng.integers(0, items, _EVENTS)
        ]
        await client.record_interactions(events, timeout_s=30.0)


async def _warm(clients: Sequence[RetrievalClient], items: int) -> None:
    """Requests the list of every item once, so that caches have it."""
    numbers = iter(range(items))

    async def call(client: RetrievalClient) -> None:
        for number in numbers:
            audience = c.Audience(user_id="user-0", item_ids=(_item(number),), surface="item_page")
            await client.recommend(audience, timeout_s=30.0)

    await asyncio.gather(*map(call, clients))


async def _kill(cluster: LocalCluster, seconds: float) -> float:
    """Kills a primary and restarts it; returns the seconds until its replica took over."""
    await asyncio.sleep(seconds)
    start = time.perf_counter()
    await cluster.primaries[0].kill()
    while not await cluster.replicas[0].is_primary():
        await asyncio.sleep(0.02)
    promoted_s = time.perf_counter() - start
    await asyncio.sleep(start + seconds - time.perf_counter())
    await cluster.primaries[0].start()
    return promoted_s


async def _ask(
    clients: Sequence[RetrievalClient], bench: FailoverBench, results: _Results, total_s: float
) -> None:
    rng = np.random.default_rng(bench.seed + 1)
    loop = asyncio.get_running_loop()
    count = round(bench.lists * total_s)
    users, items = rng.integers(0, _USERS, count), rng.zipf(1.3, count) % bench.items

    async def send(number: int, due: float) -> None:
        audience = c.Audience(
            user_id=f"user-{users[number]}",
            item_ids=(_item(int(items[number])),),
            surface="item_page",
        )
        try:
            await clients[number % _CONNECTIONS].recommend(audience, timeout_s=bench.timeout_s)
        except NearlineError:
            results.failed_lists[int(number / bench.lists / bench.seconds)] += 1
        results.lists_s.append(loop.time() - due)

    await run_open_loop(bench.lists, range(count), send)


async def _write(
    clients: Sequence[RetrievalClient], bench: FailoverBench, results: _Results, total_s: float
) -> None:
    rng = np.random.default_rng(bench.seed + 2)
    loop = asyncio.get_running_loop()
    count = round(bench.writes * total_s)
    vectors = rng.standard_normal((count, _DIM)).astype(np.float32)

    async def send(number: int, due: float) -> None:
        client = clients[number // 2 % _CONNECTIONS]
        try:
            if number % 2:
                # Each item once, so that the log has the version that was acknowledged.
                item = c.Item(id=f"new-{number}", title="New", vector=vectors[number])
                reply = await client.upsert_items([item], timeout_s=_WRITE_TIMEOUT_S)
                results.changes[item.id] = reply.results[0].version
            else:
                user, event = f"user-{number % _USERS}", f"event-{number}"
                one = c.Interaction(
                    item_id=_item(number % bench.items), user_id=user, event_id=event
                )
                await client.record_interactions([one], timeout_s=_WRITE_TIMEOUT_S)
                results.events.append((user, event))
        except NearlineError:
            results.refused += 1
        else:
            results.writes_s.append(loop.time() - due)
            results.acknowledged_at.append(loop.time())

    await run_open_loop(bench.writes, range(count), send)


async def _lost_changes(store: Path, url: str, results: _Results) -> int:
    """Returns the number of acknowledged upserts that the change log does not have."""
    from retrieval.changelog.registry import ChangeLogs

    logs = ChangeLogs(Store(store), url, who="benchmark")
    reader = logs.reader(c.DEFAULT_COLLECTION)
    after = dict.fromkeys(range(PARTITIONS), 0)
    found: dict[str, int] = {}
    while entries := await reader.read(after, limit=_PAGE):
        for entry in entries:
            after[entry.partition] = entry.position
            found[entry.change.document_id] = entry.position
    await logs.close()
    return sum(found.get(name) != version for name, version in results.changes.items())


async def _lost_events(client: RetrievalClient, results: _Results) -> int:
    """Returns the number of acknowledged interactions that their users do not have."""
    known: dict[str, set[str]] = {}
    for user, _ in results.events:
        if user not in known:
            record = await client.get_user(user, timeout_s=30.0)
            known[user] = {one.event_id for one in record.interactions}
    return sum(event not in known[user] for user, event in results.events)


def _item(number: int) -> str:
    return f"item-{number:06d}"
