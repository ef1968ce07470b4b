"""Callers of the metrics port that send half a request, many requests, or none."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import pytest
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector

from nearline import serving
from nearline.serving import running
from nearline.settings import ServerSettings
from nearline_cli.local.processes import free_port
from tests import waits

pytestmark = pytest.mark.service
until = partial(waits.until, timeout_s=20)


def threads_in(function: str) -> int:
    stacks = map(traceback.walk_stack, sys._current_frames().values())
    return sum(any(one.f_code.co_qualname == function for one, _ in stack) for stack in stacks)


@pytest.mark.parametrize("timeout_s", [0.2, 60.0])
async def test_half_requests_for_metrics_take_a_few_threads_and_no_others_time(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float
) -> None:
    monkeypatch.setattr(serving, "_METRICS_TIMEOUT_S", timeout_s, raising=False)
    settings = ServerSettings(metrics_port=free_port())
    async with running([], settings=settings):
        address = ("127.0.0.1", settings.metrics_port)
        before = threading.active_count()
        with contextlib.ExitStack() as stack:
            for _ in range(120):
                peer = stack.enter_context(socket.create_connection(address, 20))
                peer.sendall(b"GET /metrics HTTP/1.1\r\n")
            if timeout_s < 1:
                assert await asyncio.to_thread(peer.recv, 1) == b""
            url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
            reply = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=20).read())
            assert b"nearline_server_call_limit" in reply
            await until(lambda: threading.active_count() < before + 80)


async def test_metrics_are_read_once_for_all_who_wait_for_them() -> None:
    asked, waiting = 10, threading.Event()
    begun: list[int] = []

    class Slow(Collector):
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> list[Metric]:
            begun.append(len(begun))
            assert waiting.wait(20)
            return []

    def scrape() -> bytes:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return cast(bytes, reply.read())

    # Half requests of tests before this one are answered once their callers have gone.
    await until(lambda: threads_in("ThreadingMixIn.process_request_thread") == 0)
    settings = ServerSettings(metrics_port=free_port())
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    async with running([], settings=settings):
        callers, collector = ThreadPoolExecutor(asked), Slow()
        REGISTRY.register(collector)
        try:
            replies = [callers.submit(scrape) for _ in range(asked)]
            await until(lambda: threads_in("_shared.<locals>.answer") == asked)
            waiting.set()
            await asyncio.to_thread(callers.shutdown)
            assert all(b"nearline_server_call_limit" in one.result() for one in replies)
        finally:
            waiting.set()
            REGISTRY.unregister(collector)
    assert 1 < len(begun) < asked


@contextlib.contextmanager
def stopped_process(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process that serves metrics, and how often it was asked, and stops it (SIGSTOP)."""
    code = f"""
import functools
import itertools
import signal
from prometheus_client import Gauge
from nearline.serving import start_metrics
from nearline.settings import ServerSettings
Gauge("asked_before", "x").set_function(functools.partial(next, itertools.count()))
start_metrics(ServerSettings(metrics_port={port}))
print(flush=True)
signal.pause()
"""
    command = (sys.executable, "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def test_connections_to_metrics_wait_while_their_process_is_busy() -> None:
    port = free_port()
    with stopped_process(port), contextlib.ExitStack() as held:
        # Refused ones would be tried again after a second.
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 0.9))


def test_connections_that_were_reset_are_not_answered_and_take_no_others_place() -> None:
    port = free_port()
    with (
        stopped_process(port) as process,
        socket.create_connection(("127.0.0.1", port), 20) as half,
    ):
        half.sendall(b"GET /metrics HTTP/1.1\r\n")
        for number in range(200):
            with socket.create_connection(("127.0.0.1", port), 20) as one:
                # Who asks for another text shares no reply.
                one.sendall(b"GET /metrics HTTP/1.1\r\nAccept: text/x%d\r\n\r\n" % number)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        process.send_signal(signal.SIGCONT)
        # It is accepted after those that were reset.
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
            assert b"\nasked_before 0.0\n" in reply.read()
        half.sendall(b"\r\n")
        assert half.recv(1 << 16).startswith(b"HTTP/1.0 200")


def test_metrics_are_compressed_for_callers_that_ask_for_it() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with stopped_process(port) as process:
        process.send_signal(signal.SIGCONT)
        wanted = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(wanted, timeout=20) as reply:
            assert b"nearline_server_call_limit" in gzip.decompress(reply.read())
        with urllib.request.urlopen(url, timeout=20) as reply:
            assert b"nearline_server_call_limit" in reply.read()
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(url, data=b"x", timeout=20)
