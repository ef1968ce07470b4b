"""A router whose collector of traces is away, or hangs: nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline_cli.local.processes import RETRIEVAL_SERVICES, free_port, service_process
from tests.loopback_server import loopback_server
from tests.retrieval.small_snapshots import documents_of, write_snapshot

pytestmark = pytest.mark.service
QUERY = c.Query(vector=np.ones(4, np.float32))
SEARCHES = 200
# Of which the exporter takes up to two.
GRACE_S = 10.0


@contextlib.asynccontextmanager
async def no_collector() -> AsyncIterator[int]:
    """Yields a port that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.asynccontextmanager
async def silent_collector() -> AsyncIterator[int]:
    """Yields a port that accepts connections, reads, and never answers."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass

    async with loopback_server(read) as port:
        yield port


def lost_spans(metrics_port: int) -> float:
    """Returns how many spans a process has failed to export."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = re.search(r'^nearline_trace_spans_total\{outcome="failed"\} (.+)$', text, re.M)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("collector", [no_collector, silent_collector])
async def test_without_a_collector_searches_succeed_and_the_router_ends_in_time(
    collector: Callable[[], contextlib.AbstractAsyncContextManager[int]],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    documents = documents_of(rng.integers(-3, 4, (90, 4)).astype(np.float32))
    write_snapshot(tmp_path, documents, shards=1)
    metrics_port = free_port()
    words = ["--store", str(tmp_path), "--drain-s", "0", "--metrics-port", str(metrics_port)]
    async with collector() as port:
        environ = {
            "NEARLINE_TRACE_ENDPOINT": f"127.0.0.1:{port}",
            "NEARLINE_TRACE_SAMPLE": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        }
        async with service_process(
            "retrieval", words, ready_services=RETRIEVAL_SERVICES, environ=environ
        ) as router:
            async with RetrievalClient(router.address) as client, asyncio.timeout(60):
                options = c.SearchOptions(k=5)
                replies = [await client.search(QUERY, options) for _ in range(SEARCHES)]
                assert [len(one.hits) for one in replies] == [5] * SEARCHES
                # They were recorded, and it did try.
                while not await asyncio.to_thread(lost_spans, metrics_port):
                    await asyncio.sleep(0.1)
                for _ in range(SEARCHES):
                    await client.search(QUERY, options)
            start = time.monotonic()
            assert await router.stop(GRACE_S) == 0, list(router.log)
            took_s = time.monotonic() - start
    assert took_s < GRACE_S
    logged = [line for line in router.log if "Failed to export" in line]
    assert len(logged) <= 1, "once a minute"
    assert not [line for line in router.log if "Traceback" in line]
