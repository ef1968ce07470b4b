"""Searches by text while embedding services are slow, killed, away and back: real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import NotReady
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    ServiceProcess,
    retrieval_process,
    start_service,
)
from tests.index_builder.embedders import HashEmbedder
from tests.retrieval.embedders.paced_embedding import DELAY_S, LOG

pytestmark = pytest.mark.service
TEXTS = [f"word{number} of the {number % 7}th shelf" for number in range(60)]
LIVE = c.ServedBy()


class Service:
    """An embedding service that may be killed and started again at its address."""

    def __init__(self, log: Path, delay_s: float) -> None:
        self._environ = {DELAY_S: str(delay_s), LOG: str(log)}
        self._log = log
        self.process: ServiceProcess | None = None
        self.address = ""

    async def start(self) -> None:
        """Starts it, at its former address if it had one."""
        words = ["--drain-s", "0"]
        if self.address:
            words += ["--port", self.address.rpartition(":")[2]]
        self.process = await start_service(
            "tests.retrieval.embedders.paced_embedding",
            words,
            ready_services=EMBEDDING_SERVICES,
            environ=self._environ,
        )
        self.address = self.process.address

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def stop(self) -> None:
        """Kills it, if it runs."""
        if self.process is not None:
            self.send(signal.SIGKILL)
            await self.process.wait()
            self.process = None

    @property
    def texts(self) -> int:
        """Texts that it embedded so far."""
        return len(self._log.read_text("utf-8").splitlines()) if self._log.exists() else 0


@contextlib.asynccontextmanager
async def services(folder: Path, *delays_s: float) -> AsyncIterator[list[Service]]:
    made = [Service(folder / f"{n}.log", delay_s) for n, delay_s in enumerate(delays_s)]
    try:
        for one in made:
            await one.start()
        yield made
    finally:
        for one in made:
            await one.stop()


@contextlib.asynccontextmanager
async def searching(
    folder: Path, embedding: list[Service], *, lexical: bool = True
) -> AsyncIterator[RetrievalClient]:
    """Yields a client of a router over a small collection."""
    options = BuildOptions(
        store=str(folder / "store"), index=IndexOptions(factory="Flat"), lexical=lexical
    )
    items = [c.Item(id=str(number), text=text) for number, text in enumerate(TEXTS)]
    await build_snapshot(items, options, HashEmbedder())
    addresses = ",".join(one.address for one in embedding)
    words = ("--search-cache", "0", "--drain-s", "0")
    async with (
        retrieval_process(folder / "store", words, embedding=addresses) as router,
        RetrievalClient(router.address) as client,
    ):
        yield client


class Load:
    """Eight people who search without a pause, for what they then find first."""

    def __init__(self, client: RetrievalClient) -> None:
        self._client = client
        self.rungs: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self, searches: int) -> None:
        """Makes searches; raises the first error of one."""
        numbers = iter(range(searches))

        async def person() -> None:
            for number in numbers:
                reply = await self._client.search(
                    c.Query(text=TEXTS[number % len(TEXTS)]), c.SearchOptions(k=3), timeout_s=10.0
                )
                self.rungs[reply.info.served_by.rung] += 1
                if reply.hits[0].id != str(number % len(TEXTS)):
                    self.wrong.append(reply.hits[0].id)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(person())


async def test_services_share_the_load_and_one_that_is_killed_fails_no_search(
    tmp_path: Path,
) -> None:
    async with (
        services(tmp_path, 0.002, 0.05) as (fast, slow),
        searching(tmp_path, [fast, slow]) as client,
    ):
        load = Load(client)
        await load.run(400)
        assert fast.texts + slow.texts == 400
        # Much faster, also on a busy machine; both work all the time.
        assert 10 < slow.texts < 0.5 * fast.texts
        running = asyncio.create_task(load.run(300))
        before = fast.texts
        while fast.texts < before + 50:
            await asyncio.sleep(0.005)
        await fast.stop()
        await running
        assert load.rungs == {"": 700}
        assert load.wrong == []
        # It is taken up again.
        await fast.start()
        before = fast.texts
        async with asyncio.timeout(20):
            while fast.texts == before:
                await load.run(8)


async def test_without_any_service_texts_are_searched_by_words_until_one_is_back(
    tmp_path: Path,
) -> None:
    async with services(tmp_path, 0.0, 0.0) as both, searching(tmp_path, both) as client:
        load = Load(client)
        await load.run(20)
        running = asyncio.create_task(load.run(400))
        await asyncio.gather(*(one.stop() for one in both))
        await running
        assert set(load.rungs) <= {"", c.LEXICAL_RUNG}
        for mode in (None, c.SearchMode.HYBRID, c.SearchMode.DENSE):
            reply = await client.search(
                c.Query(text=TEXTS[7]), c.SearchOptions(k=1, mode=mode, min_score=1e6)
            )
            assert [hit.id for hit in reply.hits] == ["7"]
            served = reply.info.served_by
            assert (served.source, served.rung) == (c.Source.FALLBACK, c.LEXICAL_RUNG)
            assert all(one.address in served.reason for one in both)
            assert "min_score is not applied" in served.reason
        assert load.wrong == []
        await both[1].start()
        async with asyncio.timeout(20):
            while (await client.search(c.Query(text=TEXTS[7]))).info.served_by != LIVE:
                await asyncio.sleep(0.05)


async def test_a_service_that_hangs_leaves_time_for_an_answer_by_words(tmp_path: Path) -> None:
    async with services(tmp_path, 0.0) as (one,), searching(tmp_path, [one]) as client:
        await Load(client).run(10)
        one.send(signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        try:
            for timeout_s in (0.4, 0.4, 4.0, 4.0, 10.0):
                start = loop.time()
                reply = await client.search(c.Query(text=TEXTS[3]), timeout_s=timeout_s)
                assert reply.info.served_by.rung == c.LEXICAL_RUNG
                assert one.address in reply.info.served_by.reason
                assert reply.hits[0].id == "3"
            # By now it is known to hang: nothing waits for it.
            assert loop.time() - start < 2.0
        finally:
            one.send(signal.SIGCONT)
        async with asyncio.timeout(20):
            while (await client.search(c.Query(text=TEXTS[3]))).info.served_by != LIVE:
                await asyncio.sleep(0.05)


async def test_without_a_lexical_index_the_error_says_what_to_do(tmp_path: Path) -> None:
    async with (
        services(tmp_path, 0.0) as (one,),
        searching(tmp_path, [one], lexical=False) as client,
    ):
        await Load(client).run(10)
        await one.stop()
        with pytest.raises(NotReady, match=f"{one.address}.* `nearline"):
            await client.search(c.Query(text=TEXTS[3]), timeout_s=5.0)
