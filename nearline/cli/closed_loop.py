"""Callers of `nearline bench retrieval`: searches in a closed loop, and the recall of replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.cli.raw_calls import call_in_loop
from nearline.v1 import retrieval_pb2
from nearline.vectors import pack

METHOD = "/nearline.v1.RetrievalService/Search"
# Scores of equal vectors differ in the last digits between a matrix product and faiss.
TIE = 1e-6
# Read once by the process that calls.
_kept: dict[str, Any] = {}


class Task(NamedTuple):
    """What is measured.

    folder: Holds the store and what the measuring processes share.
    collection: What is asked; all collections in a folder hold the same vectors.
    ef: Width of the graph search; 0 where the index is no graph.
    """

    folder: Path
    k: int
    ef: int
    concurrency: int
    threads: int
    collection: str = "bench"

    @property
    def store(self) -> Path:
        """The snapshot store."""
        return self.folder / "store"

    @property
    def ids(self) -> Path:
        """Ids by index row, a line each."""
        return self.folder / "ids.txt"


@dataclass(frozen=True, slots=True)
class Round:
    """One stretch of closed-loop calls. latencies_s: one per call. recall: over its replies."""

    qps: float
    latencies_s: NDArray[np.float64]
    recall: float


def call_round(task: Task, address: str, seconds: float) -> Round:
    """Calls Search in a closed loop; requests are serialised before, replies parsed after."""
    exact = exact_answers(task)
    requests = _requests(task, exact["queries"])
    calls = call_in_loop(address, METHOD, requests, task.concurrency, seconds)
    return Round(
        qps=calls.qps,
        latencies_s=calls.latencies_s,
        recall=_recall(task, exact, calls.replies),
    )


def _requests(task: Task, queries: NDArray[np.float32]) -> list[bytes]:
    options = retrieval_pb2.SearchOptions(k=task.k, ef_search=task.ef or None)
    return [
        retrieval_pb2.SearchRequest(
            collection=task.collection, query=retrieval_pb2.Query(vector=pack(row)), options=options
        ).SerializeToString()
        for row in queries
    ]


def _recall(
    task: Task, exact: dict[str, NDArray[np.float32]], replies: Sequence[tuple[int, bytes]]
) -> float:
    if "base" not in _kept:
        _kept["base"] = np.load(task.folder / "base.npy", mmap_mode="r")
        ids = task.ids.read_text("utf-8").splitlines()
        _kept["rows"] = {one: row for row, one in enumerate(ids)}
    found = 0
    for number, reply in replies:
        hits = retrieval_pb2.SearchResponse.FromString(reply).result.hits
        rows = [_kept["rows"][hit.id] for hit in hits]
        scores = np.asarray(_kept["base"][sorted(set(rows))]) @ exact["queries"][number]
        found += int((scores >= exact["edge"][number] - TIE).sum())
    return found / (len(replies) * task.k)


def exact_answers(task: Task) -> dict[str, NDArray[np.float32]]:
    """Gives the queries, and the score of each one's exact k-th best."""
    if "exact" not in _kept:
        with np.load(task.folder / "exact.npz") as file:
            _kept["exact"] = {name: file[name] for name in file.files}
    exact: dict[str, NDArray[np.float32]] = _kept["exact"]
    return exact
