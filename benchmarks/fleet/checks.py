"""Makes the checks of probes: commands, HTTP, gRPC health, connections."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from benchmarks.fleet.containers import Check, ExecCheck, GrpcCheck, HttpCheck, TcpCheck
from nearline import health


class ExitStatus(Protocol):
    """The end of a command."""

    @property
    def code(self) -> int:
        """Its exit code."""


class ProbeTarget(Protocol):
    """A running container, as checks see it."""

    @property
    def address(self) -> str:
        """Its address."""

    async def execute(self, words: Sequence[str]) -> ExitStatus:
        """Runs a command in it."""


async def passes(running: ProbeTarget, check: Check, timeout_s: float) -> bool:
    """Makes a check once; returns whether it succeeded in time."""
    try:
        async with asyncio.timeout(timeout_s):
            match check:
                case ExecCheck(words):
                    return (await running.execute(words)).code == 0
                case HttpCheck(port, path):
                    status = await asyncio.to_thread(
                        _http_status, running.address, port, path, timeout_s
                    )
                    return 200 <= status < 400
                case GrpcCheck(port, service):
                    query = partial(health.query, f"{running.address}:{port}", timeout_s, service)
                    return not (await asyncio.to_thread(query)).why
                case TcpCheck(port):
                    _, writer = await asyncio.open_connection(running.address, port)
                    writer.close()
                    return True
    except (OSError, TimeoutError):
        return False


def _http_status(host: str, port: int, path: str, timeout_s: float) -> int:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except http.client.HTTPException:
            return 599
