"""Callers of the metrics port that send half a request, many requests, or none."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector

from nearline import serving
from nearline.serving import running
from nearline.settings import ServerSettings
from nearline_cli.local.processes import free_port
from tests.waits import until

pytestmark = pytest.mark.service


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

    def answering() -> int:
        return sum("process_request" in one.name for one in threading.enumerate())

    # Those of tests before this one may still end.
    await until(lambda: answering() == 0)

    settings = ServerSettings(metrics_port=free_port())
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    async with running([], settings=settings):
        callers, collector = ThreadPoolExecutor(asked), Slow()
        REGISTRY.register(collector)
        try:
            replies = [callers.submit(scrape) for _ in range(asked)]
            await until(lambda: answering() == asked)
            waiting.set()
            await asyncio.to_thread(callers.shutdown)
            assert all(b"nearline_server_call_limit" in one.result() for one in replies)
        finally:
            waiting.set()
            REGISTRY.unregister(collector)
    assert 1 < len(begun) < asked


def test_connections_to_metrics_wait_while_their_process_is_busy() -> None:
    port = free_port()
    code = f"""
import signal
from nearline.serving import start_metrics
from nearline.settings import ServerSettings
start_metrics(ServerSettings(metrics_port={port}))
print(flush=True)
signal.pause()
"""
    command = (sys.executable, "-c", code)
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        contextlib.ExitStack() as held,
    ):
        held.callback(process.kill)
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        # Refused ones would be tried again after a second.
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 0.9))
