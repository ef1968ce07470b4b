"""A router over real shard servers with replicas that start late, stop, hang and move."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import AdminClient, RetrievalClient
from nearline.errors import DeadlineExceeded
from nearline_cli.local.processes import SHARD_SERVICES, ServiceProcess, free_port, service_process
from retrieval.shards.client import ShardClient
from retrieval.shards.replicas.replica import Replica
from tests import waits
from tests.retrieval.router.test_processes import router, shard_servers
from tests.retrieval.small_snapshots import documents_of, write_snapshot

pytestmark = pytest.mark.service
until = partial(waits.until, timeout_s=30, every_s=0.05)
QUERY = c.Query(vector=np.ones(4, np.float32))
ALL = c.SearchOptions(k=60)


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    write_snapshot(
        tmp_path, documents_of(rng.integers(-3, 4, (60, 4)).astype(np.float32)), shards=2
    )
    return tmp_path


async def test_a_router_starts_without_a_replica_and_without_a_shard(store: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with shard_servers(store, "0", "1") as (zero, one):
        async with (
            router(store, "--shards", f"0={nobody},{zero.address};1={one.address},{nobody}") as up,
            RetrievalClient(up.address) as client,
            AdminClient(up.address) as admin,
        ):
            reply = await client.search(QUERY, ALL, timeout_s=5.0)
            assert (reply.info.coverage.shards_answered, len(reply.hits)) == (2, 60)
            (status,) = (await admin.serving_status()).collections
            assert list(status.replicas_ready) == [1, 1]
        start = time.monotonic()
        async with (
            router(
                store, "--shards", f"0={zero.address};1={nobody}", "--shard-wait-s", "0.5"
            ) as up,
            RetrievalClient(up.address) as client,
            AdminClient(up.address) as admin,
        ):
            assert time.monotonic() - start < 20
            reply = await client.search(QUERY, ALL, timeout_s=5.0)
            assert reply.info.coverage.missing_shards == (1,)
            (status,) = (await admin.serving_status()).collections
            assert (status.shards_ready, status.shards_total) == (1, 2)
            # It comes late, and is taken in.
            async with late_server(store, "1", nobody):
                await until_whole(client)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_request_fails_when_a_replica_stops(store: Path, number: signal.Signals) -> None:
    async with shard_servers(store, "0,1", "0,1") as (one, other):
        topology = f"0={one.address},{other.address};1={one.address},{other.address}"
        async with (
            router(store, "--shards", topology) as up,
            RetrievalClient(up.address) as client,
        ):

            async def ask() -> None:
                while other.process.returncode is None:
                    reply = await client.search(QUERY, timeout_s=10.0)
                    assert not reply.info.coverage.missing_shards

            async def read() -> None:
                ids = [hit.id for hit in everything.hits]
                while other.process.returncode is None:
                    assert len((await client.get_items(ids, timeout_s=10.0)).items) == 60

            everything = await client.search(QUERY, ALL, timeout_s=10.0)
            # Not more at once than a busy machine answers in time.
            asking = asyncio.gather(*(ask() for _ in range(4)), *(read() for _ in range(8)))
            await client.search(QUERY, timeout_s=10.0)
            os.kill(other.pid, number)
            await asking
            await client.search(QUERY, c.SearchOptions(require_full_coverage=True), timeout_s=10.0)


async def test_a_hung_shard_without_another_replica_stops_costing_time(store: Path) -> None:
    async with shard_servers(store, "0", "1", "1") as (zero, one, other):
        topology = f"0={zero.address};1={one.address},{other.address}"
        async with (
            router(store, "--shards", topology) as up,
            RetrievalClient(up.address) as client,
        ):
            await client.search(QUERY, timeout_s=5.0)
            for process in (one, other):
                os.kill(process.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(30):
                    took_s = 2.0
                    while took_s >= 1.0:
                        start = time.monotonic()
                        # On a busy machine, an answer that waited for the shard may miss it.
                        with contextlib.suppress(DeadlineExceeded):
                            reply = await client.search(QUERY, timeout_s=2.0)
                            assert reply.info.coverage.missing_shards == (1,)
                        took_s = time.monotonic() - start
            finally:
                for process in (one, other):
                    os.kill(process.pid, signal.SIGCONT)
            await until_whole(client)


async def test_a_replica_that_moves_is_found_by_its_name(store: Path) -> None:
    port = free_port()
    async with name_server("127.0.0.1") as names:
        client = ShardClient(f"dns://{names.address}/shard.nearline.test:{port}")
        replica = Replica(client)
        watcher = asyncio.ensure_future(replica.watch())
        try:
            async with late_server(store, "0", f"127.0.0.1:{port}"):
                await until(lambda: not replica.health.away)
            await until(lambda: replica.health.away)
            names.answer = "127.0.0.2"
            async with late_server(store, "0", f"127.0.0.2:{port}"):
                await until(lambda: not replica.health.away)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            await client.close()


def late_server(
    store: Path, numbers: str, address: str
) -> contextlib.AbstractAsyncContextManager[ServiceProcess]:
    host, port = address.split(":")
    return service_process(
        "retrieval.shard_server",
        [
            *("--store", str(store), "--shard", numbers, "--drain-s", "0"),
            *("--host", host, "--port", port),
        ],
        ready_services=SHARD_SERVICES,
    )


async def until_whole(client: RetrievalClient) -> None:
    async with asyncio.timeout(30):
        while (await client.search(QUERY, timeout_s=5.0)).info.coverage.missing_shards:
            await asyncio.sleep(0.05)


class NameServer(asyncio.DatagramProtocol):
    """Answers every query for an address (A) with the same one, and other queries with none.

    Source: RFC 1035, section 4.
    """

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own transport is not of the class that it promises.
        self._transport = cast(asyncio.DatagramTransport, transport)
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, peer: tuple[str | Any, int]) -> None:
        end = data.index(0, 12) + 5
        is_address = data[end - 4 : end - 2] == b"\0\1"
        header = data[:2] + struct.pack(">HHHHH", 0x8580, 1, int(is_address), 0, 0)
        record = struct.pack(">HHHLH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(self.answer)
        self._transport.sendto(header + data[12:end] + (record if is_address else b""), peer)


@contextlib.asynccontextmanager
async def name_server(answer: str) -> AsyncIterator[NameServer]:
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(answer), local_addr=("127.0.0.1", 0)
    )
    try:
        yield names
    finally:
        transport.close()
