"""Callers of `nearline bench search`: searches in a closed loop, and the recall of replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.prepared_calls import call_closed_loop, percentile_ms
from nearline.channel_security import ChannelSecurity
from nearline.v1 import retrieval_pb2, types_pb2
from nearline.vectors import pack

METHOD = "/nearline.v1.RetrievalService/Search"
BATCH_METHOD = "/nearline.v1.RetrievalService/SearchBatch"
# Scores of a matrix product and of faiss differ in the last digits.
TIE = 1e-6
_CACHE = types_pb2.ServedBy.SOURCE_CACHE
_DRAWN = 100_000
_PLAIN = ChannelSecurity()
# Loaded once by the calling process.
_cache: dict[str, Any] = {}


class SearchTask(NamedTuple):
    """A measured search task.

    folder: Contains the store, and data shared by the measuring processes. ef: Width of the graph
        search; 0 if the index is not a graph. threads: Of baselines without Nearline. collection:
        Searched collection; all collections in a folder have the same vectors. batch: Queries of a
        call.
    """

    folder: Path
    k: int
    ef: int
    concurrency: int
    threads: int
    collection: str = "bench"
    batch: int = 1

    @property
    def store(self) -> Path:
        """Folder of the snapshot store."""
        return self.folder / "store"

    @property
    def ids(self) -> Path:
        """File of ids by index row, one per line."""
        return self.folder / "ids.txt"


@dataclass(frozen=True, slots=True)
class SearchRound:
    """A round of closed-loop calls.

    qps: Queries per second. latencies_s: One per call. recall: Over all replies. replies: Number of
        replies, including the lead-in. cached: Share of replies from a cache. fallbacks: Batches
        that the CPU answered in place of a GPU.
    """

    qps: float
    latencies_s: NDArray[np.float64]
    recall: float
    replies: int
    cached: float = 0.0
    fallbacks: int = 0


def run_round(
    task: SearchTask,
    address: str,
    seconds: float,
    zipf: float = 0.0,
    lead_s: float = 0.0,
    security: ChannelSecurity = _PLAIN,
) -> SearchRound:
    """Calls Search in a closed loop; requests are serialised before, replies parsed afterwards.

    Args:
        task: What to search.
        address: Address of the router.
        seconds: Duration of the round.
        zipf: The n-th most popular query is sent n^-zipf times as often as the first; 0 sends all
            in turn.
        lead_s: Seconds of lead-in that do not count.
        security: Credential and TLS of the callers.
    """
    requests = search_requests(task, exact_answers(task)["queries"])
    order = _popular(len(requests), zipf) if zipf else range(len(requests))
    batch = [requests[row] for row in order]
    calls = call_closed_loop(address, METHOD, batch, task.concurrency, seconds, lead_s, security)
    replies = [
        (order[number], retrieval_pb2.SearchResponse.FromString(reply))
        for number, reply in calls.replies
    ]
    cached = sum(reply.info.served_by.source == _CACHE for _, reply in replies)
    return SearchRound(
        qps=calls.qps,
        latencies_s=calls.latencies_s,
        recall=mean_recall(
            task, [(number, [hit.id for hit in reply.result.hits]) for number, reply in replies]
        ),
        replies=len(replies),
        cached=cached / len(replies),
    )


def run_batches(task: SearchTask, address: str, seconds: float) -> SearchRound:
    """Calls SearchBatch in a closed loop, with the task's number of queries; see `run_round`."""
    requests = batch_requests(task, exact_answers(task)["queries"])
    calls = call_closed_loop(address, BATCH_METHOD, requests, task.concurrency, seconds)
    replies = [
        (number, retrieval_pb2.SearchBatchResponse.FromString(reply))
        for number, reply in calls.replies
    ]
    found = [
        (number * task.batch + place, [hit.id for hit in result.hits])
        for number, reply in replies
        for place, result in enumerate(reply.results)
    ]
    return SearchRound(
        qps=calls.qps * task.batch,
        latencies_s=calls.latencies_s,
        recall=mean_recall(task, found),
        replies=len(replies),
        fallbacks=sum(bool(reply.info.served_by.reason) for _, reply in replies),
    )


def round_figures(rounds: Sequence[SearchRound], k: int, prefix: str = "") -> dict[str, object]:
    """Returns the medians over rounds, with a prefix to each name."""
    return {
        f"{prefix}qps": round(median(turn.qps for turn in rounds), 1),
        f"{prefix}p50_ms": percentile_ms(rounds, 50),
        f"{prefix}p99_ms": percentile_ms(rounds, 99),
        f"{prefix}recall@{k}": round(median(turn.recall for turn in rounds), 4),
    }


def _popular(queries: int, zipf: float) -> list[int]:
    """Draws queries by their popularity; the same ones each time."""
    weights = np.arange(1, queries + 1, dtype=np.float64) ** -zipf
    rng = np.random.default_rng(0)
    drawn: list[int] = rng.choice(queries, _DRAWN, p=weights / weights.sum()).tolist()
    return drawn


def search_requests(task: SearchTask, queries: NDArray[np.float32]) -> list[bytes]:
    """Returns encoded searches, one per query."""
    options = retrieval_pb2.SearchOptions(k=task.k, ef_search=task.ef or None)
    return [
        retrieval_pb2.SearchRequest(
            collection=task.collection, query=retrieval_pb2.Query(vector=pack(row)), options=options
        ).SerializeToString()
        for row in queries
    ]


def batch_requests(task: SearchTask, queries: NDArray[np.float32]) -> list[bytes]:
    """Returns encoded batches of searches; queries that do not fill a batch are left out."""
    options = retrieval_pb2.SearchOptions(k=task.k, ef_search=task.ef or None)
    return [
        retrieval_pb2.SearchBatchRequest(
            collection=task.collection,
            queries=[
                retrieval_pb2.Query(vector=pack(row)) for row in queries[at : at + task.batch]
            ],
            options=options,
        ).SerializeToString()
        for at in range(0, len(queries) - task.batch + 1, task.batch)
    ]


def mean_recall(task: SearchTask, replies: Sequence[tuple[int, Sequence[str]]]) -> float:
    """Returns the share of the exact k best that was found.

    Args:
        task: What was searched.
        replies: Number of the query, and the ids found; anything after U+0001 in an id is ignored.
    """
    exact = exact_answers(task)
    if "base" not in _cache:
        _cache["base"] = np.load(task.folder / "base.npy", mmap_mode="r")
        ids = task.ids.read_text("utf-8").splitlines()
        _cache["rows"] = {one: row for row, one in enumerate(ids)}
    found = 0
    for number, hits in replies:
        rows = {_cache["rows"][one.partition("\x01")[0]] for one in hits}
        scores = np.asarray(_cache["base"][sorted(rows)]) @ exact["queries"][number]
        found += int((scores >= exact["edge"][number] - TIE).sum())
    return found / (len(replies) * task.k)


def exact_answers(task: SearchTask) -> dict[str, NDArray[np.float32]]:
    """Returns the queries, and the score of each one's exact k-th best."""
    if "exact" not in _cache:
        with np.load(task.folder / "exact.npz") as file:
            _cache["exact"] = {name: file[name] for name in file.files}
    exact: dict[str, NDArray[np.float32]] = _cache["exact"]
    return exact
