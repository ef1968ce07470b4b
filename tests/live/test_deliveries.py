"""Whatever is full, slow or off, no acknowledged document is lost and none dies for it, and
`nearline status` and `nearline doctor` name the problem and its remedy.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import pytest_asyncio

from nearline import SourceUrl, contract as c
from nearline.errors import NotReady, Overloaded
from nearline_cli.local import machine_checks
from tests.index_builder.ingest.web_server import web_server
from tests.live.deliveries import DISK_MIB, SHIFT_S, Deliveries, deliveries, vector_items
from tests.nearline_cli.conftest import Run, nearline
from tests.redis_server import needs_redis
from tests.small_disk import small_disk

__all__ = ["nearline"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
Rows: TypeAlias = dict[str, dict[str, str]]
Look: TypeAlias = Callable[[], tuple[Rows, str, Rows]]
ITEMS = 96


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="running")
async def give_running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deliveries]:
    """Returns processes that all tests of this module share."""
    folder: Path = tmp_path_factory.mktemp("disk")
    with small_disk(folder, DISK_MIB) as disk, web_server() as web:
        async with deliveries(folder, disk, web) as running:
            yield running


@pytest.fixture
def look(running: Deliveries, nearline: Run) -> Look:
    """Returns a function that gives what `status` shows, its error, and what `doctor` shows."""
    where = ("--redis", running.redis_url, "--store", str(running.folder / "store"), "--json")

    def run() -> tuple[Rows, str, Rows]:
        services = ("--address", f"127.0.0.1:{running.port}", "--embedding", "")
        shown = nearline("status", *services, *where)
        checked = nearline("doctor", "--port", str(running.port), *where)
        rows = [json.loads(line) for line in shown.stdout.splitlines()]
        state = {row["service"]: row for row in rows if "service" in row}
        # Both list everything, whatever is wrong with it.
        assert {"retrieval", "ingest", "redis", "disk"} <= state.keys()
        checks = {row["check"]: row for row in map(json.loads, checked.stdout.splitlines())}
        assert {"retrieval", "embedding", "generation", "ingest", "redis", "disk"} <= checks.keys()
        return state, shown.stderr, checks

    return run


async def test_clocks_ten_minutes_ahead_and_behind(
    running: Deliveries, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: set[str] = set()
    async with asyncio.timeout(30):
        while len(busy) < 2:
            items = vector_items(ITEMS)
            await running.check_delivered(await running.deliver(items), items)
            workers = (await running.queue.queue()).workers
            busy |= {one.worker_id for one in workers if one.documents_per_s}
    for shift_s, side in ((SHIFT_S, "behind"), (-SHIFT_S, "ahead of")):
        monkeypatch.setattr(machine_checks, "now_s", lambda by=shift_s: time.time() + by)
        state, error, checks = look()
        assert (state["redis"]["state"], state["disk"]["state"]) == ("clocks differ", "ok")
        assert f"s {side} that of this machine; let both ask a time server (NTP)" in error
        assert checks["redis"]["verdict"] == "warn"
        assert f"s {side} that of this machine" in checks["redis"]["found"]
        assert checks["redis"]["remedy"].startswith("let both ask a time server")


async def test_a_redis_at_maxmemory(running: Deliveries, look: Look) -> None:
    items, more = vector_items(ITEMS), vector_items(8)
    job_id = await running.deliver_into_hands(items)
    async with running.full_redis():
        with pytest.raises((NotReady, Overloaded), match="Redis"):
            await running.queue.submit(more)
        state, error, checks = look()
        assert (state["redis"]["state"], state["disk"]["state"]) == ("full", "ok")
        assert "redis: " in error and "remove dead letters (nearline letters list)" in error
        assert checks["redis"]["verdict"] == "fail"
        assert "so it refuses writes" in checks["redis"]["found"]
        assert "raise maxmemory" in checks["redis"]["remedy"]
        late = asyncio.create_task(running.deliver(more))
    await running.check_delivered(job_id, items)
    await running.check_delivered(await late, more)


async def test_a_full_disk(running: Deliveries, look: Look) -> None:
    if running.disk is None:
        pytest.skip("this user may not mount a disk of its own to fill")
    delivered: dict[str, list[c.Item]] = {}
    items = vector_items(ITEMS)
    delivered[await running.deliver_into_hands(items)] = items
    async with running.full_disk():
        with pytest.raises(NotReady):
            # The first may fit into what Redis has reserved.
            while True:
                items = vector_items(8)
                delivered[(await running.queue.submit(items)).job_id] = items
        state, error, checks = look()
        assert state["disk"]["state"] == "full"
        assert f"the disk of {running.folder}" in error and "nearline snapshots prune" in error
        # It cannot write, and has ended.
        assert (state["redis"]["state"], state["ingest"]["state"]) == ("away", "failing")
        assert f"not serving: redis (127.0.0.1:{running.port + 4}); start it: nearline up" in error
        assert "ingest: Redis does not answer" in error
        for name in ("redis", "disk", "ingest"):
            assert (checks[name]["verdict"], bool(checks[name]["remedy"])) == ("fail", True)
        assert checks["disk"]["remedy"].startswith("Remove files")
        more = vector_items(8)
        late = asyncio.create_task(running.deliver(more))
    delivered[await late] = more
    for job_id, items in delivered.items():
        await running.check_delivered(job_id, items)
    state, _, checks = look()
    for name in ("retrieval", "ingest", "redis"):
        assert (state[name]["state"], checks[name]["verdict"]) == ("serving", "ok")


async def test_four_dripping_servers(running: Deliveries, look: Look) -> None:
    drips = [SourceUrl(f"{running.web}/in/drip-body.md") for _ in range(4)]
    items = vector_items(ITEMS)
    job_id = (await running.queue.submit([*drips, *items])).job_id
    job = await running.ended(job_id)
    assert (job.state, job.indexed, job.dead) == (c.JobState.PARTLY_FAILED, len(items), 4)
    await running.check_served(items, job.watermark)
    dead = (await running.queue.results(job_id)).results[:4]
    assert {(one.outcome, one.reason) for one in dead} == {(c.IngestOutcome.DEAD, "NOT_READY")}
    assert all("not read within 0.3 s" in one.message for one in dead)
    state, _, checks = look()
    assert "4 dead letters: nearline letters list" in state["ingest"]["about"]
    assert checks["ingest"]["verdict"] == "warn"
    assert "4 dead letters: nearline letters list" in checks["ingest"]["remedy"]
