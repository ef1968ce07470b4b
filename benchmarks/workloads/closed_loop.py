"""Callers of `nearline bench search`: searches in a closed loop, and the recall of replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.figures import median_ms
from benchmarks.workloads.prepared_calls import call_closed_loop
from nearline.v1 import retrieval_pb2
from nearline.vectors import pack

METHOD = "/nearline.v1.RetrievalService/Search"
BATCH_METHOD = "/nearline.v1.RetrievalService/SearchBatch"
# Scores of a matrix product and of faiss differ in the last digits.
TIE = 1e-6
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

    qps: Queries per second. latencies_s: One per call. recall: Over all replies. fallbacks: Batches
        that the CPU answered in place of a GPU.
    """

    qps: float
    latencies_s: NDArray[np.float64]
    recall: float
    fallbacks: int = 0


def run_round(task: SearchTask, address: str, seconds: float) -> SearchRound:
    """Calls Search in a closed loop; requests are serialised before, replies parsed afterwards."""
    requests = search_requests(task, exact_answers(task)["queries"])
    calls = call_closed_loop(address, METHOD, requests, task.concurrency, seconds)
    found = [
        (number, [hit.id for hit in retrieval_pb2.SearchResponse.FromString(reply).result.hits])
        for number, reply in calls.replies
    ]
    return SearchRound(calls.qps, calls.latencies_s, mean_recall(task, found))


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
        fallbacks=sum(bool(reply.info.served_by.reason) for _, reply in replies),
    )


def round_figures(rounds: Sequence[SearchRound], k: int, prefix: str = "") -> dict[str, object]:
    """Returns the medians over rounds, with a prefix to each name."""
    latencies = [turn.latencies_s for turn in rounds]
    return {
        f"{prefix}qps": round(median(turn.qps for turn in rounds), 1),
        f"{prefix}p50_ms": median_ms(latencies, 50),
        f"{prefix}p99_ms": median_ms(latencies, 99),
        f"{prefix}recall@{k}": round(median(turn.recall for turn in rounds), 4),
    }


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
