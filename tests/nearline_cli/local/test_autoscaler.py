"""Tests of the worker pool, the autoscaler, and workers under `nearline up`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from nearline import Item
from nearline.clients import IngestClient
from nearline.contract import Job, JobState, QueueState
from nearline.errors import NotReady
from nearline.store.snapshot import Store
from nearline_cli.local.autoscaler import Autoscaler, ScalingEvent, WorkerPool
from nearline_cli.local.process_plan import Layout, plan_processes
from nearline_cli.local.scaling_policy import ScalingOptions, ScalingPolicy
from nearline_cli.local.supervisor import ProcessSpec, ProcessState, StateChange
from tests.nearline_cli.conftest import Run, Up
from tests.redis_server import needs_redis

Start = Callable[..., Up]


def echo(number: int) -> ProcessSpec:
    """Plans an echo service with no port of its own."""
    return ProcessSpec(
        name=f"echo-{number}",
        module="tests.nearline_cli.local.echo_service",
        arguments=("--port", "0", "--drain-s", "0"),
        address="",
        ready_services=("",),
    )


class WatchedPool:
    """A pool of echo services, and what it told of them."""

    def __init__(self, plan: Callable[[int], ProcessSpec] = echo) -> None:
        self.changes: asyncio.Queue[StateChange] = asyncio.Queue()
        self.pool = WorkerPool(plan, self.changes.put_nowait)

    async def until(self, name: str, state: ProcessState) -> StateChange:
        """Waits for the next change of a process to a state."""
        async with asyncio.timeout(30):
            while True:
                change = await self.changes.get()
                if (change.name, change.state) == (name, state):
                    return change


@pytest.fixture
async def watched() -> AsyncIterator[WatchedPool]:
    """Returns an empty pool, and ends what is in it afterwards."""
    one = WatchedPool()
    yield one
    await one.pool.close()


@pytest.mark.service
async def test_a_pool_grows_and_stops_its_newest_first(watched: WatchedPool) -> None:
    watched.pool.resize(1)
    first = await watched.until("echo-1", ProcessState.SERVING)
    watched.pool.resize(2)
    second = await watched.until("echo-2", ProcessState.SERVING)
    assert first.address != second.address and psutil.pid_exists(second.pid)
    watched.pool.resize(1)
    assert watched.pool.size == 1
    gone = await watched.until("echo-2", ProcessState.STOPPED)
    assert (gone.address, gone.pid) == (second.address, 0)
    assert psutil.pid_exists(first.pid) and not psutil.pid_exists(second.pid)


@pytest.mark.service
async def test_a_dead_worker_is_restarted_and_a_stopped_one_is_not(
    watched: WatchedPool,
) -> None:
    watched.pool.resize(1)
    first = await watched.until("echo-1", ProcessState.SERVING)
    psutil.Process(first.pid).kill()
    died = await watched.until("echo-1", ProcessState.DIED)
    assert (died.reason, died.retry_in_s) == ("killed by signal 9", 0.5)
    again = await watched.until("echo-1", ProcessState.SERVING)
    assert again.pid != first.pid
    await watched.pool.close()
    assert not psutil.pid_exists(again.pid)
    states = [watched.changes.get_nowait().state for _ in range(watched.changes.qsize())]
    assert states == [ProcessState.STOPPED]


@pytest.mark.service
async def test_a_worker_can_be_stopped_while_it_starts(watched: WatchedPool) -> None:
    watched.pool.resize(1)
    await watched.until("echo-1", ProcessState.STARTING)
    children = psutil.Process().children()
    await watched.pool.close()
    assert watched.pool.size == 0
    assert psutil.wait_procs(set(psutil.Process().children()) - set(children), timeout=10)[1] == []


@pytest.mark.service
async def test_a_pool_closes_even_if_nobody_can_be_told() -> None:
    served: asyncio.Queue[int] = asyncio.Queue()

    def tell(change: StateChange) -> None:
        if change.state is ProcessState.SERVING:
            served.put_nowait(change.pid)
        if change.state is ProcessState.STOPPED:
            raise RuntimeError("the report is closed")

    pool = WorkerPool(echo, tell)
    pool.resize(1)
    async with asyncio.timeout(30):
        pid = await served.get()
        with pytest.raises(RuntimeError, match="the report is closed"):
            await pool.close()
    assert pool.size == 0 and not psutil.pid_exists(pid)


@pytest.mark.service
async def test_a_failed_start_is_retried() -> None:
    watched = WatchedPool(lambda n: replace(echo(n), arguments=("--port", "0", "--fail", "error")))
    watched.pool.resize(1)
    died = [await watched.until("echo-1", ProcessState.DIED) for _ in range(2)]
    assert [one.retry_in_s for one in died] == [0.5, 1.0]
    assert died[0].reason.endswith("store /nowhere: no such folder; build one")
    await watched.pool.close()


class FakePool(WorkerPool):
    """A pool that only counts."""

    def __init__(self) -> None:
        super().__init__(echo, lambda _: None)
        self.count = 0

    @property
    def size(self) -> int:
        """How many were wanted last."""
        return self.count

    def resize(self, count: int) -> None:
        """Notes how many are wanted."""
        self.count = count


async def test_the_number_stays_while_the_ingest_service_is_unavailable() -> None:
    lags = iter([1_200, None, None, 100, None])

    async def look() -> QueueState:
        if (lag := next(lags)) is None:
            raise NotReady("the door is away")
        return QueueState(waiting=lag)

    pool, told = FakePool(), list[ScalingEvent]()
    scaler = Autoscaler(look, pool, ScalingPolicy(ScalingOptions(max_workers=9)), told.append)
    sizes = []
    for _ in range(5):
        await scaler.step()
        sizes.append(pool.size)
    assert sizes == [3] * 5
    reason = "1200 documents left at 50.0/s per worker, within 10 s"
    assert told == [ScalingEvent(before=0, after=3, lag=1_200, reason=reason)]


def layout(folder: Path, *, redis: str = "redis://there/0", ingest_port: int | None = 0) -> Layout:
    """Returns a layout on free ports."""
    return Layout(
        store=Store(folder),
        shards=1,
        port=0,
        embedding=False,
        redis=redis,
        ingest_port=ingest_port,
    )


def test_the_ingest_service_starts_after_the_routers_and_workers_get_both_addresses(
    tmp_path: Path,
) -> None:
    with plan_processes(layout(tmp_path)) as processes:
        (door,) = processes.ingest
        assert processes.worker is not None
        workers = [processes.worker(number) for number in (1, 2)]
        assert [door in stage for stage in processes.stages] == [False, False, False, True, False]
        assert processes.stages[4] == processes.gateway == ()
        assert processes.routers == processes.stages[2]
        assert "--redis redis://there/0" in " ".join(door.arguments)
        for number, worker in enumerate(workers, 1):
            words = " ".join(worker.arguments)
            assert worker.name == f"worker-{number}"
            assert f"--retrieval {processes.address} --redis redis://there/0" in words


def test_without_redis_there_is_no_queue(tmp_path: Path) -> None:
    for wanted in (layout(tmp_path, redis=""), layout(tmp_path, ingest_port=None)):
        with plan_processes(wanted) as processes:
            assert (processes.ingest, processes.worker) == ((), None)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--max-workers", "1", "--min-workers", "2"), "leave no number between them"),
        (("--no-redis", "--min-workers", "1"), "leave them out, or leave out --no-redis"),
        (("--no-redis", "--ingest-port", "0"), "leave them out, or leave out --no-redis"),
    ],
)
def test_contradictory_options_are_refused(
    nearline: Run, store: Path, words: tuple[str, ...], wanted: str
) -> None:
    done = nearline("up", "--store", str(store), "--port", "0", *words)
    assert (done.returncode, wanted in done.stderr) == (2, True), done.stderr


def items(prefix: str, count: int) -> list[Item]:
    """Returns items for the store of `up`."""
    vectors = np.eye(32, dtype=np.float32)
    return [Item(id=f"{prefix}{n}", text="new", vector=vectors[n % 32]) for n in range(count)]


async def ended(client: IngestClient, job: Job) -> Job:
    """Waits for a job."""
    return [one async for one in client.watch(job.job_id, timeout_s=60.0)][-1]


@pytest.mark.long
@pytest.mark.service
@needs_redis
async def test_up_starts_workers_for_documents_and_stops_them_when_idle(
    up: Start, nearline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a killed worker held goes to others when its lease is over.
    monkeypatch.setenv("NEARLINE_WORKER_LEASE_S", "1")
    running = up("--max-workers", "2", redis=True)
    rows = {row["name"]: row for row in running.rows if row["event"] == "process"}
    assert set(rows) == {"redis", "retrieval", "upkeep", "ingest"}
    door = str(rows["ingest"]["address"])
    async with IngestClient(door) as client:
        job = await client.submit(items("n", 1_000), timeout_s=30.0)
        grown = running.until("scale")
        # Some may be done before it looks.
        assert (grown["from"], 1 <= int(str(grown["to"])) <= 2) == (0, True)
        worker = running.until("state", name="worker-1", state="serving")
        psutil.Process(int(str(worker["pid"]))).kill()
        assert running.until("state", name="worker-1", state="died")["reason"]
        again = running.until("state", name="worker-1", state="serving")
        assert again["pid"] != worker["pid"]
        done = await ended(client, job)
        assert (done.state, done.indexed) == (JobState.SUCCEEDED, 1_000)
        shown = nearline(
            "status", "--address", running.address, "--embedding", "", "--ingest", door
        )
        assert "0 to do; " in shown.stdout and "documents/s" in shown.stdout
        none = running.until("scale", to=0)
        assert (none["lag"], none["reason"]) == (0, "there was nothing to do for 10 s")
        running.until("state", name="worker-1", state="stopped")
        assert (await client.queue()).workers == []
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=30) == 0


@pytest.mark.long
@pytest.mark.service
@needs_redis
async def test_workers_stop_before_the_services_they_call(up: Start) -> None:
    running = up("--max-workers", "1", "--min-workers", "1", redis=True)
    running.until("state", name="worker-1", state="serving")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.stdout is not None
    running.until("state", name="redis", state="stopped")
    stopped = [row["name"] for row in running.rows if row.get("state") == "stopped"]
    assert stopped[0] == "worker-1" and stopped[-2:] == ["retrieval", "redis"]


@pytest.mark.service
@needs_redis
async def test_without_workers_the_queue_waits(up: Start) -> None:
    running = up("--max-workers", "0", redis=True)
    # The router passes it on.
    async with IngestClient(running.address) as client:
        await client.submit(items("n", 10), timeout_s=30.0)
        queue = await client.queue()
        assert (queue.waiting, queue.workers) == (10, [])


def test_status_reports_an_unavailable_ingest_service_that_was_named(nearline: Run) -> None:
    where = ("--address", "127.0.0.1:1", "--embedding", "")
    done = nearline("status", *where, "--ingest", "127.0.0.1:2")
    assert "ingest (127.0.0.1:2)" in done.stderr
    assert "ingest" not in nearline("status", *where).stderr
