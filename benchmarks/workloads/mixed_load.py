"""Callers of `nearline bench overload`: searches, lists and writes with a deadline."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray

from nearline import status
from nearline.channel_security import ChannelSecurity
from nearline.client_throttle import ClientThrottle
from nearline.errors import Overloaded
from nearline.v1 import retrieval_pb2
from nearline.vectors import pack
from nearline_cli.evaluate.open_loop import run_open_loop

_SERVICE = "/nearline.v1.RetrievalService/"
# Of a hundred calls; the others are searches.
_LISTS, _WRITES = 15, 5
# Queries of a search: as many as keep the server busier than its callers.
_QUERIES = 8
_PREPARED = 2_000


class Caller(NamedTuple):
    """One tenant's callers.

    vectors: (n, d) float32, searched and written. cpus: They run there. throttled: Whether they
    send less while they are refused, as Nearline's clients do.
    """

    address: str
    token: str
    vectors: NDArray[np.float32]
    timeout_s: float
    cpus: Sequence[int] = ()
    throttled: bool = True


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Outcomes of calls.

    asked: Number of calls. codes: Their number by gRPC status. latencies_s: Of the calls that were
        answered, since they were due.
    """

    asked: int
    codes: dict[str, int]
    latencies_s: NDArray[np.float64]
    seconds: float


def call_at_rate(caller: Caller, rate: float, seconds: float) -> LoadResult:
    """Calls in an open loop."""
    return _run(caller, lambda calls: calls.open(rate, int(rate * seconds)))


def call_at_once(caller: Caller, concurrency: int, seconds: float) -> LoadResult:
    """Calls in a closed loop."""
    return _run(caller, lambda calls: calls.closed(concurrency, seconds))


def _run(caller: Caller, work: Any) -> LoadResult:
    if caller.cpus:
        os.sched_setaffinity(0, caller.cpus)

    async def run() -> LoadResult:
        channel = ChannelSecurity(caller.token).open_channel(caller.address, ())
        try:
            calls = _Calls(channel, caller)
            seconds = await work(calls)
            return LoadResult(
                calls.asked, dict(calls.codes), np.array(calls.latencies_s), float(seconds)
            )
        finally:
            await channel.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


class _Calls:
    """Sends prepared calls, and counts their outcomes."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self.asked = 0
        self.codes: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self._timeout_s = caller.timeout_s
        # One for each method, as Nearline's clients have them.
        methods: dict[str, tuple[Any, ClientThrottle | None]] = {
            name: (
                channel.unary_unary(_SERVICE + name),
                ClientThrottle(caller.address, name) if caller.throttled else None,
            )
            for name in ("SearchBatch", "Recommend", "UpsertItems")
        }
        self._prepared = [
            (*methods[name], data)
            for name, data in (_request(number, caller.vectors) for number in range(_PREPARED))
        ]

    async def open(self, rate: float, count: int) -> float:
        """Sends calls at a rate; returns the seconds in which they were due."""
        await run_open_loop(rate, range(count), self._send)
        return count / rate

    async def closed(self, concurrency: int, seconds: float) -> float:
        """Lets callers send their next call when the last one has ended."""
        loop = asyncio.get_running_loop()
        end, numbers = loop.time() + seconds, itertools.count()

        async def caller() -> None:
            while (now := loop.time()) < end:
                await self._send(next(numbers), now)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return seconds

    async def _send(self, number: int, due: float) -> None:
        call, throttle, data = self._prepared[number % len(self._prepared)]
        loop = asyncio.get_running_loop()
        self.asked += 1
        if throttle is not None:
            try:
                throttle.begin()
            except Overloaded:
                self.codes["not sent"] += 1
                return
        try:
            # The deadline counts from when the call was due.
            await call(data, timeout=max(0.0, due + self._timeout_s - loop.time()))
        except grpc.aio.AioRpcError as error:
            self.codes[error.code().name] += 1
            if throttle is not None:
                found = status.from_rpc_error(error, "")
                throttle.end(refused=type(found) is Overloaded)
            return
        if throttle is not None:
            throttle.end(refused=False)
        self.codes["OK"] += 1
        self.latencies_s.append(loop.time() - due)


def _request(number: int, vectors: NDArray[np.float32]) -> tuple[str, bytes]:
    kind = number * 37 % 100
    if kind < _LISTS:
        request: Any = retrieval_pb2.RecommendRequest(user_id=f"u{number % 200:04d}", n=10)
        return "Recommend", request.SerializeToString()
    if kind < _LISTS + _WRITES:
        vector = pack(vectors[number % len(vectors)])
        item = retrieval_pb2.Item(id=f"w{number}", text="written", vector=vector)
        return "UpsertItems", retrieval_pb2.UpsertItemsRequest(items=[item]).SerializeToString()
    options = retrieval_pb2.SearchOptions(k=10)
    rows = np.arange(number, number + _QUERIES) % len(vectors)
    queries = [retrieval_pb2.Query(vector=pack(row)) for row in vectors[rows]]
    request = retrieval_pb2.SearchBatchRequest(queries=queries, options=options)
    return "SearchBatch", request.SerializeToString()
