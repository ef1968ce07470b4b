"""Batches and threads of the clients that load data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

_BATCH = 500
_THREADS = 4


def in_batches(rows: int, size: int = _BATCH) -> Iterator[slice]:
    """Yields slices that cover 0..rows in order."""
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def in_threads(work: Callable[[slice], object], rows: int, size: int = _BATCH) -> None:
    """Calls with each batch, in four threads; raises the first error."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(work, in_batches(rows, size)):
            pass
