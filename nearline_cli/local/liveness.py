"""Finds processes that run but no longer do anything: frozen, or stuck in a loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearline.channel_security import ChannelSecurity
from nearline.errors import SettingsError

_PROBE_S = 5.0
# Many times longer than anything that holds an event loop, and than a machine that swaps.
FROZEN_S = 60.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def wait_until_frozen(
    probe: Callable[[], Awaitable[bool]], frozen_s: float = FROZEN_S
) -> None:
    """Returns once a probe has failed for a time without a break; never if it does not.

    Args:
        probe: Returns whether the process answers; may take at most a few seconds.
        frozen_s: That time in seconds.
    """
    every_s = min(_PROBE_S, frozen_s / 4)
    answered = time.monotonic()
    while True:
        await asyncio.sleep(every_s)
        if await probe():
            answered = time.monotonic()
        elif time.monotonic() - answered >= frozen_s:
            return


async def answers_health(address: str, timeout_s: float = _PROBE_S) -> bool:
    """Returns whether a gRPC server answers health checks, with whatever answer."""
    host, _, port = address.rpartition(":")
    target = f"{_LOOPBACK.get(host.strip('[]'), host)}:{port}"
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    security = ChannelSecurity.choose("", None, os.environ)
    try:
        opened = security.open_channel(target, options)
    except SettingsError:
        # Certificates that are being replaced say nothing about the process.
        return True
    async with opened as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code() not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )
    return True


async def answers_redis(address: str, timeout_s: float = _PROBE_S) -> bool:
    """Returns whether a Redis answers a PING, with whatever answer: one that loads is alive."""
    host, _, port = address.rpartition(":")
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"PING\r\n")
            return bool(await reader.readline())
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


async def answers_http(address: str, timeout_s: float = _PROBE_S) -> bool:
    """Returns whether a server of HTTP, or of HTTPS, takes a connection and answers on it."""
    host, _, port = address.rpartition(":")
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            host = host.strip("[]")
            reader, writer = await asyncio.open_connection(_LOOPBACK.get(host, host), int(port))
            # To a server of HTTPS this is malformed, and it says so or hangs up.
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            await reader.read(1)
            return True
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


async def runs(pid: int) -> bool:
    """Returns whether a process is not stopped, as by SIGSTOP; for processes that share a port."""
    # Imported late: psutil is slow to import.
    import psutil

    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_STOPPED)
    return True
