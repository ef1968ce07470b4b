"""Searches that wait for a GPU, and which of them share a call."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.index.gpu.device_data import DeviceData

# Queries of a call: as many as the device answers in the target time, within these limits.
_LEAST_BATCH, _LARGEST_BATCH = 16, 1_024
_TARGET_S = 0.01
# Candidates of a call: the device reads a group of scores for each, see `DeviceMatrix`.
_MOST_CANDIDATES = 1 << 18


class Candidates(NamedTuple):
    """The nearest rows per query as a device scores them, best first.

    rows: (n, m) int64. scores: (n, m) float32. m is the requested number, or less if the device
    compared no more rows.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def split(self, batch: Sequence[DeviceSearch]) -> list[Self]:
        """Returns the candidates of each search of a call."""
        return list(self._parts(batch))

    def _parts(self, batch: Sequence[DeviceSearch]) -> Iterator[Self]:
        at = 0
        for one in batch:
            end = at + len(one.queries)
            yield type(self)(self.rows[at:end, : one.k], self.scores[at:end, : one.k])
            at = end


class DeviceSearch(NamedTuple):
    """A search that waits; see `GpuDevice.submit`."""

    data: DeviceData
    queries: NDArray[np.floating]
    k: int
    allow: NDArray[np.uint8] | None
    among: object
    answer: Future[Candidates]

    def shares_call(self, other: DeviceSearch) -> bool:
        """Returns whether one call can answer both."""
        return self.data is other.data and self.among is other.among


class SearchQueue:
    """A queue of searches; thread-safe. Each of its callers waits for one, so it is short."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[DeviceSearch] = deque()
        self._closed = False
        self._seconds_per_query = 0.0

    def put(self, search: DeviceSearch) -> bool:
        """Adds a search; returns False once the queue is closed."""
        with self._changed:
            if self._closed:
                return False
            self._waiting.append(search)
            self._changed.notify()
        return True

    def take(self) -> list[DeviceSearch]:
        """Waits for searches; returns those that one call can answer, none once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            first = self._waiting.popleft()
            batch, others = [first], deque[DeviceSearch]()
            queries, k = len(first.queries), first.k
            for one in self._waiting:
                total, widest = queries + len(one.queries), max(k, one.k)
                if one.shares_call(first) and total <= self._limit(widest):
                    batch.append(one)
                    queries, k = total, widest
                else:
                    others.append(one)
            self._waiting = others
            return batch

    def note(self, queries: int, seconds: float) -> None:
        """Notes how long a call took."""
        # Recent calls count more: what is searched may change.
        self._seconds_per_query += (seconds / queries - self._seconds_per_query) / 8

    def close(self) -> list[DeviceSearch]:
        """Closes the queue; returns what waits in it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            return list(self._waiting)

    def _limit(self, k: int) -> int:
        in_time = int(_TARGET_S / max(self._seconds_per_query, 1e-9))
        return min(max(in_time, _LEAST_BATCH), _LARGEST_BATCH, _MOST_CANDIDATES // k)
