"""Real processes: a router over shard servers that die, stop and return."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from nearline import BlockingAdminClient, contract as c
from nearline.clients import AdminClient, RetrievalClient
from nearline.errors import (
    Conflict,
    GateFailed,
    NotFound,
    NotReady,
    SettingsError,
    ShardsUnavailable,
)
from nearline.store.snapshot import Store, shard_of
from nearline.v1 import release_pb2
from nearline_cli.local.processes import (
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    ServiceProcess,
    service_process,
)
from tests.retrieval.small_snapshots import FORCED, documents_of, write_snapshot

pytestmark = pytest.mark.service
QUERY = c.Query(vector=np.ones(4, np.float32))


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    documents = documents_of(rng.integers(-3, 4, (90, 4)).astype(np.float32))
    write_snapshot(tmp_path, documents, shards=3)
    return tmp_path


@contextlib.asynccontextmanager
async def shard_servers(store: Path, *held: str) -> AsyncIterator[list[ServiceProcess]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                service_process(
                    "retrieval.shard_server",
                    ["--store", str(store), "--shard", numbers, "--drain-s", "0"],
                    ready_services=SHARD_SERVICES,
                )
            )
            for numbers in held
        ]


def router(store: Path, *arguments: str) -> contextlib.AbstractAsyncContextManager[ServiceProcess]:
    return service_process(
        "retrieval",
        ["--store", str(store), "--drain-s", "0", *arguments],
        ready_services=RETRIEVAL_SERVICES,
    )


async def test_a_killed_shard_lowers_coverage_until_it_returns(store: Path) -> None:
    async with shard_servers(store, "0,2", "1") as (both, one):
        shards = f"0={both.address};1={one.address};2={both.address}"
        async with (
            router(store, "--shards", shards) as service,
            router(store) as whole_service,
            RetrievalClient(service.address) as client,
            RetrievalClient(whole_service.address) as whole_client,
            AdminClient(service.address) as admin,
        ):
            options = c.SearchOptions(k=90)
            whole = await client.search(QUERY, options)
            assert whole.hits == (await whole_client.search(QUERY, options)).hits
            os.kill(one.pid, signal.SIGKILL)
            await one.wait()
            part = await client.search(QUERY, options, timeout_s=5.0)
            assert part.info.coverage == c.Coverage(
                shards_answered=2, shards_total=3, missing_shards=(1,)
            )
            assert part.hits == [hit for hit in whole.hits if shard_of(hit.id, 3) != 1]
            with pytest.raises(ShardsUnavailable, match="1 of 3 shards"):
                await client.search(
                    QUERY, c.SearchOptions(require_full_coverage=True), timeout_s=5.0
                )
            (status,) = (await admin.serving_status()).collections
            assert (status.shards_ready, status.shards_total) == (2, 3)
            port = one.address.rpartition(":")[2]
            async with service_process(
                "retrieval.shard_server",
                ["--store", str(store), "--shard", "1", "--port", port, "--drain-s", "0"],
                ready_services=SHARD_SERVICES,
            ):
                async with asyncio.timeout(10):
                    while (await client.search(QUERY, options)).info.coverage.missing_shards:
                        await asyncio.sleep(0.05)


async def test_a_stopped_shard_does_not_delay_the_answer(store: Path) -> None:
    async with shard_servers(store, "0", "1,2") as (one, two):
        shards = f"0={one.address};1={two.address};2={two.address}"
        async with (
            router(store, "--shards", shards) as service,
            RetrievalClient(service.address) as client,
        ):
            await client.search(QUERY)
            os.kill(one.pid, signal.SIGSTOP)
            try:
                part = await client.search(QUERY, timeout_s=0.5)
            finally:
                os.kill(one.pid, signal.SIGCONT)
            assert part.info.coverage.missing_shards == (0,)


async def test_the_blocking_admin_client_promotes_and_rolls_back(store: Path) -> None:
    newest = write_snapshot(store, documents_of(np.ones((5, 4), np.float32)))
    ids = Store(store).snapshot_ids("default")

    def work(address: str) -> None:
        with BlockingAdminClient(address) as admin:
            assert [manifest.snapshot_id for manifest in admin.snapshots()] == ids
            assert admin.snapshot().snapshot_id == newest
            assert admin.aliases().in_force.current == newest
            assert admin.serving_status().collections[0].snapshot_id == newest
            before = next(one for one in ids if one != newest)
            assert admin.roll_back(why="a test").current == before
            with pytest.raises(GateFailed, match="has not judged"):
                admin.promote(newest, expected_epoch=3)
            with pytest.raises(GateFailed, match="has not judged"):
                admin.split(newest, 0.1)
            # The claim of a caller is not a report.
            with pytest.raises(GateFailed):
                admin.promote(newest, gate=release_pb2.GateVerdict(passed=True))
            record = admin.promote(newest, expected_epoch=3, who="a test", gate=FORCED)
            assert (record.epoch, record.gate.passed) == (4, False)
            assert list(record.gate.failed) == ["not judged"]
            assert record.gate.forced_because == FORCED.forced_because
            with pytest.raises(Conflict):
                admin.promote(before, expected_epoch=3)
            with pytest.raises(NotFound):
                admin.split("")
            assert not admin.rollout_status().running

    async with router(store) as service:
        await asyncio.to_thread(work, service.address)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (["--shards", "0=a"], SettingsError, "'a' is not an address"),
        (["--shards", "0=127.0.0.1:9"], SettingsError, "3 shards, --shards names 1"),
        (["--embedding", "nowhere"], SettingsError, "--embedding: 'nowhere'"),
        (["--collections", "lost"], NotReady, "no published snapshot"),
        (
            ["--shards", "0=127.0.0.1:9;1=127.0.0.1:9;2=127.0.0.1:9", "--shard-wait-s", "0.3"],
            NotReady,
            "not ready after 0.3 s",
        ),
    ],
)
async def test_a_router_that_cannot_serve_reports_the_reason(
    store: Path, arguments: list[str], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        async with router(store, *arguments):
            pass
