"""`nearline bench live`: cost of live changes to searches, in latency and recall."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.baselines.processes import router_process
from benchmarks.workloads.figures import percentile_ms
from benchmarks.workloads.rewriter import Rewriter, Rewrites
from benchmarks.workloads.vector_clusters import VectorClusters
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import NotReady
from nearline_cli.commands.load import search_open_loop
from nearline_cli.local.processes import redis_process
from nearline_cli.terminal.output import JsonFlag, print_figures

_REST, _LIVE = "rest", "live"
_K, _DIM = 10, 384
_ONLY_IDS = c.SearchOptions(k=_K, payload=frozenset())
_TOLERANCE = 1e-4
_PRELOAD = 500
# Options that are repeated in the figures.
_REPORTED = ("rate", "documents", "separate")
_Matrix = NDArray[np.float32]


class LiveBench(NamedTuple):
    """Options of the benchmark."""

    documents: Annotated[
        int, typer.Option(min=1_000, help="Number of documents in the snapshot.")
    ] = 30_000
    separate: Annotated[
        bool,
        typer.Option(
            "--separate/--embedded", help="Run the shard in a separate process, or in the router."
        ),
    ] = True
    pending: Annotated[
        int, typer.Option(min=1, help="Changed documents that are not in the snapshot.")
    ] = 20_000
    upserts: Annotated[float, typer.Option(min=1, help="Upserts per second.")] = 500.0
    rate: Annotated[float, typer.Option(min=1, help="Searches per second.")] = 100.0
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per round.")] = 10.0
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each kind, alternating.")] = 4


def bench_live(*, bench: LiveBench, as_json: JsonFlag = False) -> None:
    """Search at a fixed rate with and without live changes, in turn, and compare.

    For example: nearline bench live --upserts 500 --rate 100

    Two collections of the same documents are served by one router. One stays unchanged. In the
    other, `pending` documents have changed since its snapshot (half of them new); while it is
    searched, a separate process keeps changing these, with given vectors. Recall is measured over
    the documents at that time.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        record = asyncio.run(_measure(Path(folder), bench))
    print_figures(record, as_json=as_json)


async def _measure(folder: Path, bench: LiveBench) -> dict[str, object]:
    documents, pending = bench.documents, bench.pending
    rng = np.random.default_rng(0)
    drawn = VectorClusters(rng, _DIM).draw(rng, documents + pending + 500)
    base, changed, queries = np.split(drawn, [documents, documents + pending])
    names = [f"d{row:07d}" for row in range(documents)]
    # Half of the changes replace documents of the snapshot, from all over it.
    replaced = rng.choice(documents, min(pending // 2, documents), replace=False)
    changed_ids = [names[row] for row in replaced]
    changed_ids += [f"n{row:07d}" for row in range(pending - len(changed_ids))]
    for name in (_REST, _LIVE):
        await _build(folder / "store", name, names, base)
    async with redis_process(folder / "redis") as url:
        arguments = ("--store", str(folder / "store"), "--redis", url)
        async with (
            router_process(arguments, int(bench.separate)) as router,
            RetrievalClient(router.address) as client,
        ):
            address = router.address
            watermark = await _preload(client, changed_ids, changed)
            latencies: dict[str, list[float]] = {_REST: [], _LIVE: []}
            written = 0
            changes = _Changed(changed_ids, changed)
            rewrites = Rewrites(_LIVE, pending, changes, bench.upserts)
            for number in range(bench.rounds):
                for name in (_REST, _LIVE) if number % 2 == 0 else (_LIVE, _REST):
                    if name == _REST:
                        latencies[name] += await _searches(address, name, queries, bench)
                        continue
                    with Rewriter(address, rewrites) as writer:
                        latencies[name] += await _searches(address, name, queries, bench)
                    written += writer.written
            rest = await _recall(client, _REST, queries, base, b"")
            now = np.concatenate([np.delete(base, replaced, axis=0), changed])
            live = await _recall(client, _LIVE, queries, now, watermark)
    p50, p99 = (
        {name: percentile_ms(one, percent) for name, one in latencies.items()}
        for percent in (50, 99)
    )
    return {
        "p99_ratio": round(p99[_LIVE] / p99[_REST], 3),
        "recall_drop": round(rest - live, 4),
        "p99_ms": p99[_LIVE],
        "p99_at_rest_ms": p99[_REST],
        "p50_ms": p50[_LIVE],
        "p50_at_rest_ms": p50[_REST],
        "recall@10": round(live, 4),
        "recall_at_rest@10": round(rest, 4),
        "upserts_per_s": round(written / (bench.rounds * bench.seconds), 1),
        "pending": pending,
        "searches": len(latencies[_LIVE]),
        **{name: getattr(bench, name) for name in _REPORTED},
    }


async def _build(store: Path, name: str, ids: Sequence[str], base: _Matrix) -> None:
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot

    options = BuildOptions(
        store=str(store),
        collection=name,
        index=IndexOptions(factory="HNSW32,Flat"),
        golden_queries=50,
    )
    items = (c.Item(id=one, vector=row) for one, row in zip(ids, base, strict=True))
    await build_snapshot(items, options)


async def _preload(client: RetrievalClient, ids: Sequence[str], vectors: _Matrix) -> bytes:
    """Changes every document once; returns the watermark that includes all changes."""
    watermark = b""
    for first in range(0, len(ids), _PRELOAD):
        part = slice(first, first + _PRELOAD)
        reply = await client.upsert_items(
            [c.Item(id=one, vector=v) for one, v in zip(ids[part], vectors[part], strict=True)],
            collection=_LIVE,
            timeout_s=60.0,
        )
        watermark = reply.watermark
        # Wait for the changes here, so that a steady state is measured.
        await client.search(
            c.Query(vector=vectors[0]),
            c.SearchOptions(k=1, payload=frozenset(), min_watermark=watermark),
            collection=_LIVE,
            timeout_s=60.0,
        )
    return watermark


async def _searches(address: str, name: str, queries: _Matrix, bench: LiveBench) -> list[float]:
    """Searches in an open loop; returns seconds from the time each search was due.

    Raises:
        NotReady: A search failed.
    """
    batch = [c.Query(vector=row) for row in queries]
    result = await search_open_loop(
        address, batch, bench.rate, bench.seconds, _ONLY_IDS, name, 10.0
    )
    if result.errors:
        raise NotReady(f"searches of {name!r} failed: {dict(result.errors)}")
    return result.latencies_s


async def _recall(
    client: RetrievalClient, name: str, queries: _Matrix, documents: _Matrix, watermark: bytes
) -> float:
    """Returns the share of hits that score as well as the exact ten best."""
    options = replace(_ONLY_IDS, min_watermark=watermark)
    good = 0
    for query in queries:
        edge = np.partition(documents @ query, -_K)[-_K] - _TOLERANCE
        reply = await client.search(c.Query(vector=query), options, collection=name, timeout_s=60.0)
        good += sum(hit.score >= edge for hit in reply.hits)
    return good / (len(queries) * _K)


class _Changed(NamedTuple):
    """The documents that keep changing."""

    ids: Sequence[str]
    vectors: _Matrix

    def __call__(self, rows: NDArray[np.int64]) -> list[c.Item]:
        return [c.Item(id=self.ids[row], vector=self.vectors[row]) for row in rows]
