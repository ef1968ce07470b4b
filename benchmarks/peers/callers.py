"""The callers of a system: threads of one process that search in a closed loop, and a writer.

These functions run in processes of their own, one for the callers and one for the writer, which
keep their client from call to call.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from benchmarks.peers.dataset import PeerDataset, condition_of, exact_edges, mean_recall
from benchmarks.peers.system import PeerClient

_LEAD_S = 0.3
_ROWS_PER_INSERT = 10
# By name; each process has one target.
_kept: dict[str, Any] = {}
_Result = TypeVar("_Result")


class Target(NamedTuple):
    """A running system: its client, its address, and the data set."""

    client: type[PeerClient]
    address: str
    dataset: PeerDataset


class CallerLoad(NamedTuple):
    """Searches of the callers in a round.

    width: Width of the searches. attribute: Attribute of the filter; empty for none. callers:
    Number of threads. seconds: Duration, after a lead-in of 0.3 s that does not count. payload:
    Whether texts are fetched.
    """

    width: int
    attribute: str
    callers: int
    seconds: float
    payload: bool = False


class PeerRound(NamedTuple):
    """Figures of one round; the recall is the mean over all queries."""

    qps: float
    p50_ms: float
    p99_ms: float
    recall: float


def load_rows(target: Target) -> float:
    """Writes all rows; returns the seconds until they are indexed."""
    client = open_client(target)
    start = time.perf_counter()
    client.load()
    return time.perf_counter() - start


def set_width(target: Target, width: int) -> None:
    """Sets the width of a system that reads it when it starts."""
    open_client(target).use_width(width)


def run_round(target: Target, load: CallerLoad) -> PeerRound:
    """Searches in a closed loop: each thread sends its next query when the last is answered."""
    client, dataset = open_client(target), target.dataset
    edges = _keep(f"edges {load.attribute}", lambda: exact_edges(dataset, load.attribute))
    threads = _keep(f"{load.callers} threads", lambda: ThreadPoolExecutor(load.callers))
    queries = [np.array(query) for query in dataset.queries]
    clock = time.perf_counter

    def search(number: int) -> Sequence[int]:
        condition = condition_of(load.attribute, number)
        return client.search(queries[number], load.width, condition, load.payload)

    # The first searches connect, and may read the index.
    list(threads.map(search, [caller % len(queries) for caller in range(load.callers)]))
    start = clock() + _LEAD_S
    end = start + load.seconds

    def call(caller: int) -> list[tuple[float, float, int, Sequence[int]]]:
        calls = []
        for turn in itertools.count(caller * len(queries) // load.callers):
            number = turn % len(queries)
            if (asked := clock()) >= end:
                break
            rows = search(number)
            calls.append((asked, clock(), number, rows))
        return calls

    calls = [call for made in threads.map(call, range(load.callers)) for call in made]
    counted = [(asked, replied) for asked, replied, _, _ in calls if asked >= start]
    if not counted:
        raise TimeoutError(f"no search was answered within {load.seconds:g} s")
    latencies = np.array([replied - asked for asked, replied in counted])
    p50, p99 = np.percentile(latencies, (50, 99)) * 1e3
    replies = {number: rows for _, _, number, rows in calls}
    # The recall is over all queries, so that equal indexes have equal recall.
    others = [number for number in range(len(queries)) if number not in replies]
    replies |= zip(others, threads.map(search, others), strict=True)
    return PeerRound(
        qps=len(counted) / (max(replied for _, replied in counted) - start),
        p50_ms=float(p50),
        p99_ms=float(p99),
        recall=mean_recall(dataset, load.attribute, edges, list(replies.items())),
    )


def run_inserts(target: Target, rate: float, seconds: float) -> float:
    """Inserts new rows, ten in a call, that are among the best of no query.

    Args:
        target: What is written to.
        rate: Rows per second; after a late call, the next follows at once.
        seconds: Duration.
    Returns: Rows inserted per second.
    """
    client, dataset = open_client(target), target.dataset
    numbers = _keep("new rows", lambda: itertools.count(len(dataset.base), _ROWS_PER_INSERT))
    start = time.perf_counter()
    written = 0
    while (spent := time.perf_counter() - start) < seconds:
        if (wait := written / rate - spent) > 0:
            time.sleep(min(wait, seconds - spent))
            continue
        first = next(numbers)
        rows = range(first, first + _ROWS_PER_INSERT)
        client.upsert(rows, dataset.mirrored(rows))
        written += _ROWS_PER_INSERT
    return written / (time.perf_counter() - start)


def open_client(target: Target) -> PeerClient:
    """Returns the process' client of the target; opens it at first, and at a new address."""
    kept: PeerClient | None = _kept.get("client")
    if kept is None or kept.address != target.address:
        if kept is not None:
            _close(kept)
        _kept["client"] = kept = target.client(target.address, target.dataset)
        atexit.register(_close, kept)
    return kept


def _close(client: PeerClient) -> None:
    # Its server may be gone.
    with contextlib.suppress(Exception):
        client.close()


def _keep(name: str, make: Callable[[], _Result]) -> _Result:
    if name not in _kept:
        _kept[name] = make()
    result: _Result = _kept[name]
    return result
