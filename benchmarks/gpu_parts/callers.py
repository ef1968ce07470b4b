"""Processes that call a service with prepared bytes, so that one core does not limit the load."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.prepared_calls import call_closed_loop, call_open_loop
from nearline.errors import NotReady

_LEAD_S = 0.5


class Load(NamedTuple):
    """The replies that callers got.

    per_s: Calls per second, of all processes. latencies_s: One per call. replies: The first reply
    to each request that was answered, by its number.
    """

    per_s: float
    latencies_s: NDArray[np.float64]
    replies: dict[int, bytes]

    def percentile_ms(self, percent: float) -> float:
        """Returns a percentile of the latencies in milliseconds."""
        return float(np.percentile(self.latencies_s, percent)) * 1e3


class Callers:
    """Caller processes.

    Args:
        count: Number of processes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))

    async def __aenter__(self) -> Self:
        # Imports must not count as load.
        await self._each(_start, [() for _ in range(self._count)])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._pool.shutdown)

    async def closed_loop(
        self,
        addresses: Sequence[str],
        method: str,
        requests: Sequence[bytes],
        in_flight: int,
        seconds: float,
    ) -> Load:
        """Keeps `in_flight` requests of each process in progress for this many seconds.

        Args:
            addresses: Each process calls one of them.
        """
        calls = [
            (addresses[number % len(addresses)], method, share, in_flight, seconds)
            for number, share in enumerate(self._shares(requests))
        ]
        found = await self._each(_closed, calls)
        return self._join(found)

    async def open_loop(
        self, address: str, method: str, requests: Sequence[bytes], rate: float
    ) -> Load:
        """Sends each request once, at this rate per second; see `run_open_loop`."""
        shares = self._shares(requests)
        each = rate / len(shares)
        found = await self._each(_open, [(address, method, share, each) for share in shares])
        return self._join(found)

    def _shares(self, requests: Sequence[bytes]) -> list[Sequence[bytes]]:
        return [requests[number :: self._count] for number in range(self._count)]

    async def _each(
        self, function: Callable[..., Load | None], arguments: Sequence[tuple[object, ...]]
    ) -> list[Load]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(self._pool, partial(function, *one)) for one in arguments]
        return [found for found in await asyncio.gather(*calls) if found is not None]

    def _join(self, found: Sequence[Load]) -> Load:
        if not all(len(one.latencies_s) for one in found):
            raise NotReady(
                "a caller got no reply to a request that it sent during the measurement; the "
                "service is too slow for it, see its log"
            )
        return Load(
            sum(one.per_s for one in found),
            np.concatenate([one.latencies_s for one in found]),
            {
                at * self._count + process: reply
                for process, one in enumerate(found)
                for at, reply in one.replies.items()
            },
        )


def _start() -> None:
    """Loads this module."""


def _closed(
    address: str, method: str, requests: Sequence[bytes], in_flight: int, seconds: float
) -> Load:
    calls = call_closed_loop(address, method, requests, in_flight, seconds, _LEAD_S)
    return _load(calls.qps, calls.latencies_s, calls.replies)


def _open(address: str, method: str, requests: Sequence[bytes], rate: float) -> Load:
    calls = call_open_loop(address, method, requests, rate)
    if calls.failed:
        raise NotReady(f"{calls.failed:,} of {len(requests):,} calls failed; lower the rate")
    return _load(calls.qps, calls.latencies_s, calls.replies)


def _load(
    per_s: float, latencies_s: NDArray[np.float64], replies: Sequence[tuple[int, bytes]]
) -> Load:
    firsts: dict[int, bytes] = {}
    for number, reply in replies:
        firsts.setdefault(number, reply)
    return Load(per_s, latencies_s, firsts)
