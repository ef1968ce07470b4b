"""Documents go through a queue whose workers are killed all the time: each has its effect once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import Item, RetrievalClient, contract as c
from nearline.clients import IngestClient
from nearline.errors import NotFound, NotReady
from nearline.store.snapshot import PARTITIONS
from nearline_cli.local.processes import (
    WORKER_MODULE,
    ServiceProcess,
    free_port,
    ingest_process,
    retrieval_process,
    start_service,
)
from retrieval.changelog.keys import partition_keys
from retrieval.redis_client.connection import connect
from tests.redis_server import needs_redis, valkey
from tests.scale import nightly, scaled

pytestmark = [pytest.mark.service, pytest.mark.long, needs_redis]
DIM = 16
DOCUMENTS = scaled(2_000, nightly=5_000)
POISON = DOCUMENTS // 50
JOB = 250
# Documents while Redis is killed twice.
IN_ALL = scaled(800, nightly=2_000)
EXPIRING = scaled(400, nightly=1_000)
WORKERS = 2
KILL_EVERY_S = scaled(1, nightly=4) / 2


def vector(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(number).normal(size=DIM).astype(np.float32)


def poison(number: int) -> c.IngestSource:
    """Returns what can be no document, each third in another way; its name is its number."""
    name = f"bad-{number}"
    kinds: list[c.IngestSource] = [
        Item(id=name, text="no vector"),
        Item(id=name, text="too short a vector", vector=np.ones(3, np.float32)),
        c.SourceFile(f"{name}.md", b"not UTF-8: \xff"),
    ]
    return kinds[number % 3]


class Workers:
    """Workers that are started again whenever one is killed."""

    def __init__(self, redis: str, router: str) -> None:
        # Several documents are in hand whenever a kill comes, and none of them is to blame.
        self._words = ("--redis", redis, "--retrieval", router, "--batch", "8", "--lease-s", "2")
        self._running: list[ServiceProcess] = []
        self.kills = 0

    async def start(self) -> None:
        self._running = [await self._one() for _ in range(WORKERS)]

    async def kill_one(self) -> None:
        at = self.kills % WORKERS
        os.kill(self._running[at].pid, signal.SIGKILL)
        self.kills += 1
        await self._running[at].stop()
        self._running[at] = await self._one()

    async def stop(self) -> None:
        await asyncio.gather(*(one.stop() for one in self._running))

    async def _one(self) -> ServiceProcess:
        return await start_service(WORKER_MODULE, self._words)


async def start_redis(folder: Path, port: int) -> ServiceProcess:
    """Starts a Redis that comes back with what it had."""
    words = ("--folder", str(folder / "redis"), "--port", str(port))
    return await start_service("nearline_cli.local.redis_process", words, ready_services=())


async def submitted(
    door: IngestClient, items: list[Item], job_id: str, offset: int, *, more: bool
) -> None:
    """Submits until it is acknowledged; what was taken without an answer is not taken twice."""
    while True:
        try:
            await door.submit(items, job_id=job_id, offset=offset, more=more)
            return
        except NotReady:
            await asyncio.sleep(0.1)


async def patiently_ended(door: IngestClient, job_id: str) -> c.Job:
    while True:
        try:
            return await ended(door, job_id)
        except NotReady:
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(folder: Path, redis_url: str = "") -> AsyncIterator[tuple[str, str, str]]:
    """Yields the addresses of Redis, a router that serves one document, and the door."""
    first = Item(id="first", text="first", vector=vector(DOCUMENTS))
    await build_snapshot([first], BuildOptions(store=str(folder / "store"), shards=2))
    async with contextlib.AsyncExitStack() as stack:
        redis = redis_url or await stack.enter_async_context(valkey())
        router = await stack.enter_async_context(
            retrieval_process(folder / "store", ("--redis", redis))
        )
        door = await stack.enter_async_context(ingest_process(redis))
        yield redis, router.address, door.address


async def changes_logged(redis: str) -> int:
    """Counts the entries of the change log."""
    client = connect(redis)
    try:
        return sum(
            [await client.xlen(partition_keys("default", one).log) for one in range(PARTITIONS)]
        )
    finally:
        await client.aclose()


async def ended(door: IngestClient, job_id: str) -> c.Job:
    async for job in door.watch(job_id, timeout_s=300.0):
        last = job
    return last


async def results_of(door: IngestClient, job_id: str) -> list[c.IngestResult]:
    found: list[c.IngestResult] = []
    token = ""
    while True:
        page = await door.results(job_id, page_size=1_000, token=token)
        found += page.results
        token = page.token
        if not token:
            return found


@pytest.mark.timeout(300)
async def test_every_document_has_its_effect_once_however_often_workers_are_killed(
    tmp_path: Path,
) -> None:
    rng = random.Random(7)
    bad = set(rng.sample(range(DOCUMENTS), POISON))
    sources = [
        poison(n) if n in bad else Item(id=f"d{n}", text=f"document {n}", vector=vector(n))
        for n in range(DOCUMENTS)
    ]
    async with (
        running(tmp_path) as (redis, router, address),
        IngestClient(address) as door,
        RetrievalClient(router) as client,
    ):
        before = await changes_logged(redis)
        workers = Workers(redis, router)
        await workers.start()
        try:
            jobs = [
                await door.submit(
                    sources[at : at + JOB], tenant=f"tenant {at % 3}", callback_id=f"at {at}"
                )
                for at in range(0, DOCUMENTS, JOB)
            ]
            watched = [asyncio.create_task(ended(door, job.job_id)) for job in jobs]
            for _ in itertools.count():
                _, left = await asyncio.wait(watched, timeout=KILL_EVERY_S)
                if not left:
                    break
                await workers.kill_one()
        finally:
            await workers.stop()
        assert workers.kills >= 2

        # Every job ended as it had to, and says of each document what became of it.
        for number, one in enumerate(watched):
            job, numbers = one.result(), range(number * JOB, (number + 1) * JOB)
            dead = len(bad & set(numbers))
            assert (job.indexed, job.dead, job.left, job.superseded) == (JOB - dead, dead, 0, 0)
            state = c.JobState.PARTLY_FAILED if dead else c.JobState.SUCCEEDED
            assert (job.state, job.callback_id) == (state, f"at {numbers.start}")
            results = await results_of(door, job.job_id)
            assert [result.place for result in results] == list(range(JOB))
            assert [result.outcome is c.IngestOutcome.DEAD for result in results] == [
                n in bad for n in numbers
            ]

        # Each good document was changed exactly once: the log says so, and the items do.
        assert await changes_logged(redis) - before == DOCUMENTS - POISON
        good = [n for n in range(DOCUMENTS) if n not in bad]
        for at in range(0, len(good), 500):
            part = good[at : at + 500]
            mark = watched[-1].result().watermark
            reply = await client.get_items([f"d{n}" for n in part], min_watermark=mark)
            assert {item.id: item.text for item in reply.items} == {
                f"d{n}": f"document {n}" for n in part
            }

        # The dead letters are the poison, and nothing else.
        letters: list[c.DeadLetter] = []
        token = ""
        while not letters or token:
            page = await door.dead_letters(page_size=40, token=token)
            letters += page.letters
            token = page.token
        names = sorted(one.result.document_id.removesuffix(".md") for one in letters)
        assert names == sorted(f"bad-{n}" for n in bad)
        assert (await door.queue()).lag == 0


@pytest.mark.timeout(180)
async def test_a_redis_that_is_killed_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    redis = await start_redis(tmp_path, port)
    url = f"redis://{redis.address}/0"
    async with running(tmp_path, url) as (_, router, address), IngestClient(address) as door:
        before = await changes_logged(url)
        workers = Workers(url, router)
        await workers.start()
        job_id = c.new_job_id()
        try:
            for at in range(0, IN_ALL, 100):
                items = [
                    Item(id=f"d{n}", text="text", vector=vector(n)) for n in range(at, at + 100)
                ]
                await submitted(door, items, job_id, at, more=at < IN_ALL - 100)
                if at in (200, 600):
                    os.kill(redis.pid, signal.SIGKILL)
                    await redis.stop()
                    redis = await start_redis(tmp_path, port)
            job = await patiently_ended(door, job_id)
        finally:
            await workers.stop()
        assert (job.state, job.indexed, job.sources) == (c.JobState.SUCCEEDED, IN_ALL, IN_ALL)
        assert await changes_logged(url) - before == IN_ALL
    await redis.stop()


@nightly
async def test_results_expire_on_time_and_a_worker_that_is_told_to_stop_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (redis, router, address), IngestClient(address) as door:
        workers = Workers(redis, router)
        await workers.start()
        items = [Item(id=f"d{n}", text="text", vector=vector(n)) for n in range(EXPIRING)]
        job = await door.submit(items, result_ttl_s=3.0)
        # In the middle of the work: what it holds is ended, or given back at once.
        await workers.stop()
        state = await door.queue()
        assert state.in_hand == 0
        assert (await door.job(job.job_id)).left == state.waiting + state.delayed
        await workers.start()
        last = await ended(door, job.job_id)
        await workers.stop()
        assert (last.state, last.indexed) == (c.JobState.SUCCEEDED, EXPIRING)
        assert all(one.attempts == 1 for one in await results_of(door, job.job_id))
        async with asyncio.timeout(10):
            while True:
                try:
                    await door.job(job.job_id)
                except NotFound:
                    break
                await asyncio.sleep(0.05)
        assert (await door.jobs()).jobs == []
