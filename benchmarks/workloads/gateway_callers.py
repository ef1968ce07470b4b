"""Callers of `nearline bench gateway`: the same requests by gRPC and by HTTP."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import grpc
import numpy as np
import orjson
import uvloop
from numpy.typing import NDArray

from nearline.v1 import generation_pb2, retrieval_pb2
from nearline.vectors import pack

_SEARCH: Final = "/nearline.v1.RetrievalService/Search"
_GENERATE: Final = "/nearline.v1.GenerationService/Generate"
_PATH: Final = "/v1/collections/default"
_PREPARED: Final = 500
_K: Final = 10
_QUESTION: Final = "which documents are there?"
_T = TypeVar("_T")
# Sends the request of a number, and returns when the reply is there.
_Send = Callable[[int], Awaitable[None]]


class Round(NamedTuple):
    """Seconds of each call, and calls per second."""

    latencies_s: NDArray[np.float64]
    per_s: float


def search_by_grpc(
    address: str, vectors: NDArray[np.float32], callers: int, seconds: float
) -> Round:
    """Searches in a closed loop over one connection; vectors are (n, d) float32."""

    async def run() -> Round:
        requests = [
            retrieval_pb2.SearchRequest(
                query=retrieval_pb2.Query(vector=pack(row)),
                options=retrieval_pb2.SearchOptions(k=_K),
            ).SerializeToString()
            for row in vectors[:_PREPARED]
        ]
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(_SEARCH)

            async def send(number: int) -> None:
                retrieval_pb2.SearchResponse.FromString(
                    await call(requests[number % len(requests)], timeout=10)
                )

            return await _closed([send] * callers, seconds)

    return _run(run())


def search_by_http(
    address: str, vectors: NDArray[np.float32], callers: int, seconds: float
) -> Round:
    """Searches in a closed loop, each caller over a connection of its own."""

    async def run() -> Round:
        bodies = [
            _request("search", {"query": {"vector": row.tolist()}, "options": {"k": _K}})
            for row in vectors[:_PREPARED]
        ]
        connections = [await _Connection.open(address) for _ in range(callers)]

        def sender(connection: _Connection) -> _Send:
            async def send(number: int) -> None:
                orjson.loads(await connection.ask(bodies[number % len(bodies)]))

            return send

        try:
            return await _closed([sender(one) for one in connections], seconds)
        finally:
            for one in connections:
                one.writer.close()

    return _run(run())


def first_events_by_grpc(address: str, count: int) -> list[float]:
    """Returns the seconds until the first event of each of so many answers, one after another."""

    async def run() -> list[float]:
        request = generation_pb2.GenerateRequest(question=_QUESTION).SerializeToString()
        found = []
        async with grpc.aio.insecure_channel(address) as channel:
            method: Any = channel.unary_stream(_GENERATE)
            for _ in range(count):
                start = time.perf_counter()
                call = method(request, timeout=10)
                await call.read()
                found.append(time.perf_counter() - start)
                while await call.read() is not grpc.aio.EOF:
                    pass
        return found

    return _run(run())


def first_events_by_http(address: str, count: int) -> list[float]:
    """Returns the same by HTTP."""

    async def run() -> list[float]:
        body = _request("answers", {"question": _QUESTION}, close=True)
        found = []
        for _ in range(count):
            connection = await _Connection.open(address)
            start = time.perf_counter()
            connection.writer.write(body)
            await connection.reader.readuntil(b"\r\n\r\n")
            await connection.reader.readuntil(b"data: ")
            found.append(time.perf_counter() - start)
            await connection.reader.read()
            connection.writer.close()
        return found

    return _run(run())


def _request(path: str, content: object, *, close: bool = False) -> bytes:
    body = orjson.dumps(content)
    kept = "close" if close else "keep-alive"
    head = (
        f"POST {_PATH}/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"connection: {kept}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(NamedTuple):
    """A connection that does no more than it must: the gateway is measured, not a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, address: str) -> _Connection:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, request: bytes) -> bytes:
        """Sends a request; returns the body of the reply. Raises: OSError: it is no success."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"the gateway answers {head[:200]!r}")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await self.reader.readexactly(int(length))


async def _closed(senders: Sequence[_Send], seconds: float) -> Round:
    """Lets each caller send its next request when it has the reply to the last one."""
    loop = asyncio.get_running_loop()
    numbers, latencies, end = itertools.count(), [], loop.time() + seconds

    async def caller(send: _Send) -> None:
        while loop.time() < end:
            start = time.perf_counter()
            await send(next(numbers))
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(caller(send) for send in senders))
    return Round(np.array(latencies), len(latencies) / seconds)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
