"""`nearline bench filter`: recall and speed of searches under filters, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import grpc
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.baselines.processes import single_process_pool
from benchmarks.workloads.closed_loop import METHOD, TIE
from benchmarks.workloads.figures import percentile_ms, print_rows
from benchmarks.workloads.retrieval_dataset import exact_edges, read_matrix
from benchmarks.workloads.rewriter import Rewriter, Rewrites
from nearline import wire
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline.filter_text import parse_filter
from nearline.v1 import retrieval_pb2
from nearline.vectors import pack
from nearline_cli.terminal.output import JsonFlag

_COLLECTION = "bench"
# Hits, and the width of the graph search without a filter.
_K, _EF = 10, 64
# Files of the data set: the served rows, and the values of their attributes.
_ROWS, _VALUES = "rows.npy", "values.npy"
_ATTRIBUTES = ("first", "second", "topic")
_READ_AT_ONCE = 1_000
_SHARES = (0.5, 0.2, 0.05, 0.01, 0.001)
_PAIRS = ((0.5, 0.5), (0.5, 0.2), (0.5, 0.08), (0.2, 0.2), (0.2, 0.05), (0.1, 0.1))
_TOPICS = (0.5, 0.2, 0.05)


class FilterCase(NamedTuple):
    """A filter to measure.

    share: Approximate share of rows that match. filter: Empty for none.
    """

    name: str
    share: float
    filter: str


class ExactResults(NamedTuple):
    """Exact results for one filter: number of matches, and the score of each query's k-th best."""

    matches: int
    edges: NDArray[np.float32]


class FilterDataset(NamedTuple):
    """Queries (n, d) float32, and the exact results of each case."""

    queries: NDArray[np.float32]
    exact: Sequence[ExactResults]


class _Documents(NamedTuple):
    """The served documents, read from the folder of a dataset."""

    folder: Path

    def __call__(self, rows: NDArray[np.int64]) -> list[Item]:
        base = np.load(self.folder / _ROWS, mmap_mode="r")
        values = np.load(self.folder / _VALUES, mmap_mode="r")
        return [
            Item(
                id=f"{row:09d}",
                vector=base[row],
                attributes=dict(zip(_ATTRIBUTES, values[:, row].tolist(), strict=True)),
            )
            for row in rows.tolist()
        ]


def bench_filter(
    vectors: Annotated[
        Path, typer.Option(metavar="FILE.npy", help="Matrix of float32 vectors, one per row.")
    ],
    queries: Annotated[
        int, typer.Option(min=10, help="Number of random rows held out as queries.")
    ] = 300,
    index: Annotated[str, typer.Option(help="FAISS factory string.")] = "HNSW32",
    writes: Annotated[
        float, typer.Option(min=0, help="Documents per second that are written meanwhile.")
    ] = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Measure Search under filters that keep between half and a thousandth of the rows.

    For example: nearline bench filter --vectors vectors.npy

    Most filters use random attributes. In the last cases, `topic` keeps the rows nearest to a
    random row, and `off topic` excludes them. One caller sends every query with every filter in
    turn, so that other load on the machine affects all alike. Recall is measured against an exact
    filtered scan. With --writes, another process keeps writing random documents as they are.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as name:
        folder = Path(name)
        with single_process_pool() as one:
            prepared = one.submit(_prepare, folder, vectors, queries, index).result()
        records = asyncio.run(_measure(folder, prepared, writes))
    print_rows([record | {"index": index} for record in records], as_json=as_json)


def filter_cases() -> list[FilterCase]:
    """Returns the filters to measure; the first is none."""
    pairs = [
        FilterCase(f"{100 * a:g}% and {100 * b:g}%", a * b, f"first < {a} AND second < {b}")
        for a, b in _PAIRS
    ]
    return [
        FilterCase("none", 1.0, ""),
        *(FilterCase(f"{100 * share:g}%", share, f"first < {share}") for share in _SHARES),
        *pairs,
        *(FilterCase(f"topic {100 * share:g}%", share, f"topic < {share}") for share in _TOPICS),
        *(
            FilterCase(f"off topic {100 * share:g}%", share, f"topic >= {1 - share:g}")
            for share in _TOPICS
        ),
    ]


# --- in a separate process: the build, and the exact results -------------------------------


def _prepare(folder: Path, vectors: Path, queries: int, factory: str) -> FilterDataset:
    """Builds the snapshot and the exact results; see the options of the command."""
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot

    matrix = np.array(read_matrix(vectors), np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    if len(matrix) < queries + _K:
        raise InvalidRequest(
            f"{vectors} has {len(matrix)} vectors; {queries} queries with k {_K} need at "
            f"least {queries + _K}",
            field="vectors",
        )
    rng = np.random.default_rng(0)
    order = rng.permutation(len(matrix))
    asked, base = matrix[np.sort(order[:queries])], matrix[np.sort(order[queries:])]
    # Rank by nearness to one row, 0 nearest: this imitates a filter on a topic.
    nearness = base @ base[rng.integers(len(base))]
    topic = np.argsort(np.argsort(-nearness)) / len(base)
    values = np.stack([rng.random(len(base)), rng.random(len(base)), topic])
    np.save(folder / _ROWS, base)
    np.save(folder / _VALUES, values)
    read = _Documents(folder)
    build = BuildOptions(
        store=str(folder / "store"),
        collection=_COLLECTION,
        index=IndexOptions(factory=factory, ef_search=_EF),
    )
    starts = range(0, len(base), _READ_AT_ONCE)
    documents = (
        item
        for start in starts
        for item in read(np.arange(start, min(start + _READ_AT_ONCE, len(base))))
    )
    asyncio.run(build_snapshot(documents, build))
    named = dict(zip(_ATTRIBUTES, values, strict=True))
    exact = [_exact(base, asked, _matching_rows(case, named, len(base))) for case in filter_cases()]
    return FilterDataset(asked, exact)


def _matching_rows(
    case: FilterCase, values: dict[str, NDArray[np.float64]], rows: int
) -> NDArray[np.bool_]:
    """Evaluates the filter of a case by arithmetic, independently of the measured code."""
    matching = np.ones(rows, np.bool_)
    for condition in case.filter.split(" AND ") if case.filter else ():
        name, sign, bound = condition.split()
        matching &= values[name] < float(bound) if sign == "<" else values[name] >= float(bound)
    return matching


def _exact(
    base: NDArray[np.float32], asked: NDArray[np.float32], matching: NDArray[np.bool_]
) -> ExactResults:
    rows = base[matching]
    return ExactResults(len(rows), exact_edges(rows, asked, min(_K, len(rows))))


# --- the measurement -------------------------------------------------------------------------


async def _measure(folder: Path, prepared: FilterDataset, writes: float) -> list[dict[str, object]]:
    from nearline_cli.local.processes import redis_process, retrieval_process

    asked = [_requests(case, prepared.queries) for case in filter_cases()]
    rows = np.load(folder / _ROWS, mmap_mode="r")
    latencies = np.empty((len(asked), len(prepared.queries)))
    replies: list[list[bytes]] = [[] for _ in asked]
    async with contextlib.AsyncExitStack() as stack:
        words: tuple[str, ...] = ()
        if writes:
            words = ("--redis", await stack.enter_async_context(redis_process(folder / "redis")))
        service = await stack.enter_async_context(retrieval_process(folder / "store", words))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(service.address))
        # Without serialisers, requests and replies are bytes.
        call: Any = channel.unary_unary(METHOD)
        for _ in range(20):
            await call(asked[0][0])
        first_ms = [await _call_ms(call, requests[0]) for requests in asked]
        writer, start_s = None, time.perf_counter()
        if writes:
            rewrites = Rewrites(_COLLECTION, len(rows), _Documents(folder), writes)
            writer = stack.enter_context(Rewriter(service.address, rewrites))
        for query in range(len(prepared.queries)):
            for number, requests in enumerate(asked):
                start = time.perf_counter()
                reply = await call(requests[query])
                latencies[number, query] = time.perf_counter() - start
                replies[number].append(reply)
        plans = [
            await _strategies(call, _requests(case, prepared.queries, explain=True))
            for case in filter_cases()
        ]
        spent_s = time.perf_counter() - start_s
    written = {"writes_per_s": round(writer.written / spent_s, 1)} if writer else {}
    p50 = [percentile_ms(one, 50) for one in latencies]
    return [
        {
            "filter": case.name,
            "selectivity": case.share,
            "n": len(rows),
            "matches": exact.matches,
            **_quality(mine, prepared.queries, rows, exact),
            "p50_ms": p50[number],
            "p99_ms": percentile_ms(latencies[number], 99),
            "p50_ratio": round(p50[number] / p50[0], 3),
            "first_ms": round(first_ms[number], 3),
            "strategy": plans[number],
            **written,
        }
        for number, (case, exact, mine) in enumerate(
            zip(filter_cases(), prepared.exact, replies, strict=True)
        )
    ]


def _requests(
    case: FilterCase, queries: NDArray[np.float32], *, explain: bool = False
) -> list[bytes]:
    options = retrieval_pb2.SearchOptions(
        k=_K,
        filter=wire.filter_to_proto(parse_filter(case.filter)) if case.filter else None,
        explain=explain,
    )
    return [
        retrieval_pb2.SearchRequest(
            collection=_COLLECTION, query=retrieval_pb2.Query(vector=pack(row)), options=options
        ).SerializeToString()
        for row in queries
    ]


async def _call_ms(call: Any, request: bytes) -> float:
    start = time.perf_counter()
    await call(request)
    return (time.perf_counter() - start) * 1e3


async def _strategies(call: Any, requests: Sequence[bytes]) -> str:
    """Returns the strategies that a filter used, and their shares of the queries."""
    counts: Counter[str] = Counter()
    for request in requests:
        reply = retrieval_pb2.SearchResponse.FromString(await call(request))
        for plan in reply.result.plans:
            name = retrieval_pb2.FilterPlan.Strategy.Name(plan.strategy)
            counts[name.removeprefix("STRATEGY_").lower()] += 1
    return ", ".join(f"{name} {count / counts.total():.0%}" for name, count in counts.most_common())


def _quality(
    replies: Sequence[bytes],
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    exact: ExactResults,
) -> dict[str, object]:
    """Returns recall against the exact results, and the fewest hits of a query."""
    wanted = min(_K, exact.matches)
    found, fewest = 0, _K
    for query, edge, reply in zip(queries, exact.edges, replies, strict=True):
        hits = retrieval_pb2.SearchResponse.FromString(reply).result.hits
        fewest = min(fewest, len(hits))
        rows = sorted({int(hit.id) for hit in hits})
        found += int((base[rows] @ query >= edge - TIE).sum())
    return {f"recall@{_K}": round(found / (wanted * len(replies)), 4), "fewest_hits": fewest}
