"""What an audit did to servers, done again as it was; `-s` prints memory and times."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pyarrow as pa
import pytest

from benchmarks.workloads.hostile_peer import HostilePeer
from benchmarks.workloads.process_memory import forget_peak, memory
from gateway import health
from index_builder.documents.attribute_columns import infer_fields
from nearline.filters import In
from nearline.serving import serve
from nearline.settings import ServerSettings
from nearline_cli.local.processes import free_port, service_process
from retrieval.index.filtering.attribute_table import AttributeTable
from retrieval.index.filtering.filter_cache import FilterCache
from tests.nearline.calls.test_hostile_peers import (
    GET,
    KNOWN,
    UPSERT,
    WATCH,
    Large,
    bearer,
    channel_to,
    is_answered,
    serves,
    until,
)

pytestmark = [pytest.mark.service, pytest.mark.long]
MIB = 1 << 20
LOAD_S, DRAIN_S, GRACE_S = 2.0, 0.5, 2.0
DOCUMENT = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A server in a process of its own. address: Where it listens."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process, self.address = process, address

    def mib(self, name: str = "VmRSS") -> float:
        return memory(self.process.pid, name) / MIB


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """Runs a server whose tenants may have two calls each."""
    limits, port = folder / "limits.toml", free_port()
    limits.write_text("[default]\nconcurrent = 2")
    with subprocess.Popen([sys.executable, "-m", __name__, str(port), str(limits)]) as process:
        try:
            yield Served(process, f"127.0.0.1:{port}")
        finally:
            process.kill()


async def test_2_a_stranger_who_sends_8_million_empty_items_costs_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        await until(lambda: serves(server.address))
        before = server.mib()
        forget_peak(server.process.pid)
        slowest = 0.0
        async with channel_to(server.address) as channel:
            calls = [
                channel.unary_unary(UPSERT)(data, compression=how, timeout=30)
                for data in (b"\x12\x00" * 8_000_000,)
                for how in (grpc.Compression.Gzip, grpc.Compression.NoCompression)
            ]
            codes = asyncio.gather(*(one.code() for one in calls))
            while not codes.done():
                start = time.monotonic()
                assert await serves(server.address)
                slowest = max(slowest, time.monotonic() - start)
        names = {code.name for code in await codes}
        peak = server.mib("VmHWM")
        wire = len(gzip.compress(b"\x12\x00" * 8_000_000))
        print(
            f"\n2: {wire:,} B on the wire: {before:.0f} MiB before, at most {peak:.0f}, "
            f"then {server.mib():.0f}; slowest health check {slowest * 1_000:.0f} ms; {names}"
        )
        assert names <= {"UNAUTHENTICATED", "UNIMPLEMENTED"}
        assert peak < before + 16
        assert slowest < 1


async def test_3_watchers_with_window_0_delay_neither_serving_nor_the_stop(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        start = time.monotonic()
        await until(lambda: serves(server.address, wanted=2))
        with HostilePeer(server.address) as peer:
            for _ in range(40):
                peer.call(WATCH, b"")
            await asyncio.to_thread(peer.settle)
            await until(lambda: serves(server.address))
            ready_s = time.monotonic() - start
            server.process.terminate()
            start = time.monotonic()
            await asyncio.to_thread(server.process.wait, 30)
            stop_s = time.monotonic() - start
        print(
            f"\n3: SERVING after {ready_s:.1f} s (loading takes {LOAD_S:g}), stopped after "
            f"{stop_s:.1f} s (drain {DRAIN_S:g}, grace {GRACE_S:g})"
        )
        assert stop_s < DRAIN_S + GRACE_S + 1


async def test_4_replies_that_nobody_reads_count(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        await until(lambda: serves(server.address))
        before = server.mib()
        with HostilePeer(server.address) as peer:
            for _ in range(40):
                peer.call(GET, b"", bearer("a"))
            await asyncio.to_thread(peer.settle)
            async with channel_to(server.address) as channel:
                metadata = tuple(bearer("a").items())
                code = await channel.unary_unary(GET)(b"", timeout=20, metadata=metadata).code()
            during = server.mib()
        await until(lambda: is_answered(server.address, "a"))
        print(
            f"\n4: {before:.0f} MiB before, {during:.0f} with 40 calls unread, "
            f"the next is {code.name}, then {server.mib():.0f}"
        )
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Two replies of 8 MiB, and what gRPC needs of each.
        assert during < before + 64


def test_5_filters_of_10_000_values_are_bounded() -> None:
    fields = infer_fields([('{"a": "text"}', "x:1")], {})
    empty = AttributeTable(pa.table({"a": pa.array([], pa.string())}), fields, 0)
    cache = FilterCache(empty, np.arange(1))
    process = psutil.Process()
    before = process.memory_info().rss / MIB
    figures = []
    for number in range(450):
        cache.matches(In("a", tuple(f"{number}-{value:014d}" for value in range(10_000))))
        if number % 150 == 149:
            figures.append(process.memory_info().rss / MIB)
    print(
        f"\n5: {before:.0f} MiB before; after 150, 300 and 450 filters:",
        ", ".join(f"{one:.0f}" for one in figures),
    )
    assert figures[-1] < before + 16


async def test_9_health_is_answered_while_15_of_16_places_read_nothing() -> None:
    port = free_port()
    arguments = ("--port", str(port), "--max-requests", "16")
    async with service_process("gateway", arguments, ready_services=()) as process:
        with contextlib.ExitStack() as stack:
            for _ in range(15):
                client = stack.enter_context(contextlib.closing(socket.socket()))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
                client.connect(("127.0.0.1", port))
                client.sendall(DOCUMENT * 60)
            start = time.monotonic()
            assert await asyncio.to_thread(health.check, f"127.0.0.1:{port}") == ""
            health_s = time.monotonic() - start
            start = time.monotonic()
            assert await process.stop(15.0) == 0
        print(f"\n9: health after {health_s:.2f} s, stopped in {time.monotonic() - start:.1f} s")
        assert health_s < 1


if __name__ == "__main__":
    settings = ServerSettings.load(
        {"port": int(sys.argv[1]), "limits": sys.argv[2], "drain_s": DRAIN_S, "grace_s": GRACE_S}
    )
    asyncio.run(
        serve(
            settings,
            [Large().registration()],
            ready=lambda: asyncio.sleep(LOAD_S),
            callers=KNOWN,
        )
    )
