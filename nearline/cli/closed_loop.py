"""Callers of `nearline bench retrieval`: searches in a closed loop, and the recall of replies."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray

from nearline.v1 import retrieval_pb2
from nearline.vectors import pack

_METHOD = "/nearline.v1.RetrievalService/Search"
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
    replies: list[tuple[int, bytes]] = []
    latencies: list[float] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        spent_s = runner.run(
            _closed_loop(address, requests, task.concurrency, seconds, replies, latencies)
        )
    return Round(
        qps=len(latencies) / spent_s,
        latencies_s=np.array(latencies),
        recall=_recall(task, exact, replies),
    )


def _requests(task: Task, queries: NDArray[np.float32]) -> list[bytes]:
    options = retrieval_pb2.SearchOptions(k=task.k, ef_search=task.ef or None)
    return [
        retrieval_pb2.SearchRequest(
            collection=task.collection, query=retrieval_pb2.Query(vector=pack(row)), options=options
        ).SerializeToString()
        for row in queries
    ]


async def _closed_loop(
    address: str,
    requests: Sequence[bytes],
    concurrency: int,
    seconds: float,
    replies: list[tuple[int, bytes]],
    latencies: list[float],
) -> float:
    clock = time.perf_counter
    numbers = itertools.count()
    async with grpc.aio.insecure_channel(address) as channel:
        # Without serialisers bytes go out and come back as they are.
        call: Any = channel.unary_unary(_METHOD)
        await call(requests[0])
        start = clock()
        end = start + seconds

        async def caller() -> None:
            while (now := clock()) < end:
                number = next(numbers) % len(requests)
                replies.append((number, await call(requests[number])))
                latencies.append(clock() - now)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return clock() - start


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
