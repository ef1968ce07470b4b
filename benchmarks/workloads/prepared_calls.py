"""gRPC calls with prepared bytes, in closed and open loops; replies are parsed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Sequence
from statistics import median
from typing import Any, NamedTuple, Protocol

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray

from nearline.channel_security import ChannelSecurity
from nearline.errors import NotReady
from nearline_cli.evaluate.open_loop import run_open_loop

_PLAIN = ChannelSecurity()


class TimedRound(Protocol):
    """A round of calls whose latencies were measured."""

    @property
    def latencies_s(self) -> NDArray[np.float64]:
        """Seconds, one per call."""
        ...


class CallResults(NamedTuple):
    """Results of calls.

    qps: Calls per second. latencies_s: One per call. replies: Number of the request, and reply;
        includes the lead-in. failed: Number of calls without a reply, in an open loop.
    """

    qps: float
    latencies_s: NDArray[np.float64]
    replies: Sequence[tuple[int, bytes]]
    failed: int = 0


def percentile_ms(rounds: Sequence[TimedRound], percentile: float) -> float:
    """Returns the median over rounds of a percentile of their latencies."""
    each = [float(np.percentile(turn.latencies_s, percentile)) for turn in rounds]
    return round(median(each) * 1e3, 3)


def call_closed_loop(
    address: str,
    method: str,
    requests: Sequence[bytes],
    concurrency: int,
    seconds: float,
    lead_s: float = 0.0,
    security: ChannelSecurity = _PLAIN,
    connections: int = 1,
) -> CallResults:
    """Calls in a closed loop: each caller sends its next request when the last one is answered.

    Args:
        address: Address of the server.
        method: "/package.Service/Method".
        requests: Sent in turn, repeatedly.
        concurrency: Number of callers.
        seconds: Duration.
        lead_s: Seconds of lead-in that do not count.
        security: Credential and TLS of the callers.
        connections: Number of connections, used in turn; servers on one port share them out.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(
            _closed(address, method, requests, concurrency, seconds, lead_s, security, connections)
        )


def call_each(
    address: str, method: str, requests: Sequence[bytes], concurrency: int
) -> CallResults:
    """Calls with each request once, in a closed loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_closed(address, method, requests, concurrency, None))


def call_open_loop(
    address: str, method: str, requests: Sequence[bytes], rate: float, connections: int = 1
) -> CallResults:
    """Calls with each request once, in an open loop; see `run_open_loop`.

    Args:
        address: Address of the server.
        method: "/package.Service/Method".
        requests: The requests.
        rate: Requests per second.
        connections: As for `call_closed_loop`.
    Raises: NotReady: no call was answered.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_open(address, method, requests, rate, connections))


async def _closed(
    address: str,
    method: str,
    requests: Sequence[bytes],
    concurrency: int,
    seconds: float | None,
    lead_s: float = 0.0,
    security: ChannelSecurity = _PLAIN,
    connections: int = 1,
) -> CallResults:
    clock = time.perf_counter
    numbers = itertools.count()
    replies: list[tuple[int, bytes]] = []
    latencies: list[float] = []
    async with _calls(address, method, connections, security) as call:
        await call[0](requests[0])
        start = clock() + lead_s
        end = math.inf if seconds is None else start + seconds

        async def caller() -> None:
            while (now := clock()) < end:
                number = next(numbers)
                if seconds is None and number >= len(requests):
                    return
                number %= len(requests)
                reply = await call[number % connections](requests[number])
                replies.append((number, reply))
                if now >= start:
                    latencies.append(clock() - now)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        spent_s = clock() - start
    return CallResults(len(latencies) / spent_s, np.array(latencies), replies)


async def _open(
    address: str, method: str, requests: Sequence[bytes], rate: float, connections: int
) -> CallResults:
    loop = asyncio.get_running_loop()
    replies: list[tuple[int, bytes]] = []
    latencies: list[float] = []
    failed = 0
    async with _calls(address, method, connections, _PLAIN) as call:

        async def send(number: int, due: float) -> None:
            nonlocal failed
            try:
                reply = await call[number % connections](requests[number])
            except grpc.aio.AioRpcError:
                # The server is overloaded, or away.
                failed += 1
                return
            replies.append((number, reply))
            latencies.append(loop.time() - due)

        start = await run_open_loop(rate, range(len(requests)), send)
        spent_s = loop.time() - start
    if not latencies:
        raise NotReady(f"none of {failed:,} calls was answered; lower the rate")
    return CallResults(len(latencies) / spent_s, np.array(latencies), replies, failed)


@contextlib.asynccontextmanager
async def _calls(
    address: str, method: str, connections: int, security: ChannelSecurity
) -> AsyncIterator[list[Any]]:
    """Opens connections; yields what calls the method over each, from bytes to bytes."""
    # Without the option, channels to one address share a connection.
    options = [("grpc.use_local_subchannel_pool", 1)] if connections > 1 else []
    async with contextlib.AsyncExitStack() as stack:
        channels = [security.open_channel(address, options) for _ in range(connections)]
        for channel in channels:
            stack.push_async_callback(channel.close)
            await channel.channel_ready()
        yield [channel.unary_unary(method) for channel in channels]
