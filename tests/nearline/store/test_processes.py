"""Real shard servers and a router over an object store: load, swap, and an outage of the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.store.snapshot import Store
from nearline_cli.local.processes import (
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    ServiceProcess,
    service_process,
)

pytestmark = pytest.mark.service
QUERY = c.Query(vector=np.eye(1, 16, dtype=np.float32)[0])


async def _build(url: str, stamp: str) -> str:
    vectors = np.eye(16, dtype=np.float32)
    documents = [
        c.Item(id=f"d{n:02d}", title=stamp, text=f"text {n}", vector=vectors[n]) for n in range(16)
    ]
    return (await build_snapshot(documents, BuildOptions(store=url, shards=2))).snapshot_id


@contextlib.asynccontextmanager
async def _served(url: str, cache: Callable[[str], Path]) -> AsyncIterator[ServiceProcess]:
    common = ["--store", url, "--drain-s", "0", "--alias-poll-s", "0.1"]
    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for number in "01":
            shard = await stack.enter_async_context(
                service_process(
                    "retrieval.shard_server",
                    [*common, "--shard", number, "--cache-dir", str(cache(number))],
                    ready_services=SHARD_SERVICES,
                )
            )
            addresses.append(f"{number}={shard.address}")
        yield await stack.enter_async_context(
            service_process(
                "retrieval",
                [*common, "--shards", ";".join(addresses)],
                ready_services=RETRIEVAL_SERVICES,
            )
        )


async def _until_served(client: RetrievalClient, snapshot_id: str) -> c.SearchReply:
    options = c.SearchOptions(k=16, payload=frozenset({c.PayloadField.TITLE}))
    async with asyncio.timeout(30):
        while True:
            reply = await client.search(QUERY, options)
            if reply.info.snapshot_id == snapshot_id:
                return reply
            await asyncio.sleep(0.05)


async def test_shards_are_served_from_an_object_store_and_a_new_snapshot_goes_live(
    s3: str, tmp_path: Path
) -> None:
    old = await _build(s3, "old")
    async with (
        _served(s3, lambda number: tmp_path / f"machine-{number}") as router,
        RetrievalClient(router.address) as client,
    ):
        reply = await _until_served(client, old)
        assert (reply.hits[0].id, len(reply.hits), reply.hits[0].title) == ("d00", 16, "old")
        new = await _build(s3, "new")
        assert {hit.title for hit in (await _until_served(client, new)).hits} == {"new"}
    for number in range(2):
        # Each machine caches the shards it serves and no others.
        held = {p.parent.name for p in (tmp_path / f"machine-{number}").rglob("dense.faiss")}
        assert held == {f"{number:03d}"}


async def test_searches_continue_while_the_store_is_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3: str
) -> None:
    snapshot_id = await _build(s3, "only")
    own = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    own.start()
    host, port = own.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    assert Store.open(s3).alias_in_force("default").current == snapshot_id
    async with (
        _served(s3, lambda number: tmp_path / f"machine-{number}") as router,
        RetrievalClient(router.address) as client,
    ):
        await _until_served(client, snapshot_id)
        await asyncio.to_thread(own.stop)
        async with asyncio.timeout(60):
            while not any("aliases cannot be read" in line for line in router.log):
                reply = await client.search(QUERY, c.SearchOptions(k=3))
                assert (reply.info.coverage.shards_answered, reply.hits[0].id) == (2, "d00")
                await asyncio.sleep(0.05)
        reply = await client.search(QUERY, c.SearchOptions(k=3))
        assert (reply.info.coverage.shards_answered, reply.hits[0].id) == (2, "d00")
