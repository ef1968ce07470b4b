"""Calls in closed and open loops; those of gRPC send prepared bytes, and are parsed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray

from nearline.errors import NotReady
from nearline_cli.evaluate.open_loop import run_open_loop

_Result = TypeVar("_Result")


class CallResults(NamedTuple):
    """Results of calls.

    spent_s: Seconds until the last reply. latencies_s: One per call. replies: Number of the
        request, and reply; includes the lead-in. failed: Number of calls without a reply, in an
        open loop.
    """

    spent_s: float
    latencies_s: NDArray[np.float64]
    replies: Sequence[tuple[int, Any]]
    failed: int = 0

    @property
    def qps(self) -> float:
        """Calls per second."""
        return len(self.latencies_s) / self.spent_s


async def closed_loop(
    send: Callable[[int], Awaitable[Any]],
    numbers: Iterator[int],
    callers: int,
    seconds: float = float("inf"),
    lead_s: float = 0.0,
) -> CallResults:
    """Calls in a closed loop: each caller sends its next request when the last one is answered.

    Args:
        send: Sends the request of a number, and returns the reply.
        numbers: Numbers of the requests; the loop ends with them.
        callers: Number of callers.
        seconds: Duration. Optional.
        lead_s: Seconds of lead-in that do not count.
    """
    clock = time.perf_counter
    replies: list[tuple[int, Any]] = []
    latencies: list[float] = []
    start = clock() + lead_s

    async def caller() -> None:
        while (now := clock()) < start + seconds:
            number = next(numbers, None)
            if number is None:
                return
            replies.append((number, await send(number)))
            if now >= start:
                latencies.append(clock() - now)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return CallResults(clock() - start, np.array(latencies), replies)


def call_closed_loop(
    address: str,
    method: str,
    requests: Sequence[bytes],
    callers: int,
    seconds: float,
    lead_s: float = 0.0,
    connections: int = 1,
) -> CallResults:
    """Calls a method in a closed loop; see `closed_loop`.

    Args:
        address: Address of the server.
        method: "/package.Service/Method".
        requests: Sent in turn, repeatedly.
        callers, seconds, lead_s: See `closed_loop`.
        connections: Number of connections, used in turn; servers on one port share them out.
    """

    async def call() -> CallResults:
        async with _calls(address, method, requests, connections) as send:
            await send(0)
            numbers = itertools.cycle(range(len(requests)))
            return await closed_loop(send, numbers, callers, seconds, lead_s)

    return _run(call())


def call_each(address: str, method: str, requests: Sequence[bytes], callers: int) -> CallResults:
    """Calls with each request once, in a closed loop."""

    async def call() -> CallResults:
        async with _calls(address, method, requests, 1) as send:
            return await closed_loop(send, iter(range(len(requests))), callers)

    return _run(call())


def call_open_loop(
    address: str, method: str, requests: Sequence[bytes], rate: float, connections: int = 1
) -> CallResults:
    """Calls with each request once, in an open loop; see `run_open_loop`.

    Args:
        address, method, requests, connections: See `call_closed_loop`.
        rate: Requests per second.
    Raises: NotReady: no call was answered.
    """

    async def call() -> CallResults:
        loop = asyncio.get_running_loop()
        replies: list[tuple[int, bytes]] = []
        latencies: list[float] = []
        async with _calls(address, method, requests, connections) as send:

            async def send_due(number: int, due: float) -> None:
                # The server may be overloaded, or away.
                with contextlib.suppress(grpc.aio.AioRpcError):
                    replies.append((number, await send(number)))
                    latencies.append(loop.time() - due)

            start = await run_open_loop(rate, range(len(requests)), send_due)
            spent_s = loop.time() - start
        failed = len(requests) - len(replies)
        if not latencies:
            raise NotReady(f"none of {failed:,} calls was answered; lower the rate")
        return CallResults(spent_s, np.array(latencies), replies, failed)

    return _run(call())


def _run(call: Coroutine[Any, Any, _Result]) -> _Result:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(call)


@contextlib.asynccontextmanager
async def _calls(
    address: str, method: str, requests: Sequence[bytes], connections: int
) -> AsyncIterator[Callable[[int], Awaitable[bytes]]]:
    """Opens connections; yields what sends the request of a number over one of them."""
    # Without the option, channels to one address share a connection.
    options = [("grpc.use_local_subchannel_pool", 1)] if connections > 1 else []
    async with contextlib.AsyncExitStack() as stack:
        methods: list[Any] = []
        for _ in range(connections):
            channel = grpc.aio.insecure_channel(address, options)
            await stack.enter_async_context(channel)
            await channel.channel_ready()
            methods.append(channel.unary_unary(method))
        yield lambda number: methods[number % connections](requests[number])
