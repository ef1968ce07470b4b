"""A Service with an address of its own: passes connections on to its pods, in turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

_CHUNK = 1 << 16


class Balancer:
    """Listens on an address, and passes each connection on to one of its endpoints.

    As with kube-proxy, a connection stays with its pod, also when the pod is removed from the
    endpoints; and a connection to a pod that does not listen fails.

    Args:
        endpoints: Returns host and port of every endpoint now.
    """

    def __init__(self, endpoints: Callable[[], Sequence[tuple[str, int]]]) -> None:
        self._endpoints = endpoints
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[object]] = set()

    async def start(self, host: str, port: int) -> None:
        """Starts to listen."""
        self._server = await asyncio.start_server(self._serve, host, port)

    async def close(self) -> None:
        """Stops to listen, and ends all connections."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        endpoints = self._endpoints()
        writers = [writer]
        try:
            if endpoints:
                host, port = endpoints[next(self._turn) % len(endpoints)]
                pod_reader, pod_writer = await asyncio.open_connection(host, port)
                writers.append(pod_writer)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pass_on(reader, pod_writer))
                    group.create_task(_pass_on(pod_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for one in writers:
                one.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
