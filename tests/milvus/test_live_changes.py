"""Live changes through real routers over a real Milvus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import NearlineError, NotReady
from nearline.filters import Equals
from nearline.store.snapshot import Store
from nearline_cli.local.processes import RETRIEVAL_SERVICES, free_port
from retrieval.protocols.watermark import Watermark, decode_watermark, merge_watermarks
from tests.live.world import PASSING, PATIENCE_S, Part
from tests.milvus.servers import Server
from tests.redis_server import needs_redis

pytestmark = [
    pytest.mark.milvus,
    pytest.mark.service,
    pytest.mark.timeout(300),
    needs_redis,
]
# Milvus 2.3.5 takes most of a minute to be back after a kill, and more on a busy machine.
_RECOVERY_S = 180.0
_DIM = 8
_ITEMS = 40
_WRITING = "acquired a lease"
DENSE = c.SearchMode.DENSE
TEXT = frozenset({c.PayloadField.TEXT})


@dataclass(slots=True)
class Routers:
    """Routers over one Milvus, and their Redis."""

    redis: Part
    parts: Sequence[Part]
    clients: Sequence[RetrievalClient]

    def lines(self, number: int, words: str) -> int:
        """Counts the log lines of a router that contain some words."""
        running = self.parts[number].running
        return 0 if running is None else sum(words in line for line in running.log)

    def logs(self) -> str:
        """Returns the last log lines of every process."""
        said = []
        for part in (self.redis, *self.parts):
            said += [f"--- {part.module}", *(list(part.running.log)[-15:] if part.running else [])]
        return "\n".join(said)


def vector_of(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(number).normal(size=_DIM).astype(np.float32)


@contextlib.asynccontextmanager
async def routers(folder: Path, uri: str, count: int = 1) -> AsyncIterator[Routers]:
    """Runs routers for the length of the block, over a new snapshot in Milvus."""
    from index_builder.indexes.milvus_writer import export
    from retrieval.milvus.client import MilvusClient
    from retrieval.milvus.collection_state import CollectionStates
    from retrieval.milvus.layout import collection_name

    store, port = folder / "store", free_port()
    items = [
        c.Item(id=f"b{n:02d}", text=f"base {n}", vector=vector_of(n), attributes={"year": n})
        for n in range(_ITEMS)
    ]
    await build_snapshot(items, BuildOptions(store=str(store), shards=2))
    (snapshot_id,) = Store(store).snapshot_ids("default")
    milvus = MilvusClient(uri, timeout_s=30.0)
    await export(Store(store), "default", snapshot_id, milvus, index="FLAT")
    redis_words = ("--folder", str(folder / "redis"), "--port", str(port))
    redis = Part("nearline_cli.local.redis_process", redis_words, ())
    common: Sequence[str] = ("--store", str(store), "--redis", f"redis://127.0.0.1:{port}/0")
    common = (*common, "--backend", "milvus", "--milvus-uri", uri, "--alias-poll-s", "0.2")
    ports = [free_port() for _ in range(count)]
    parts = [
        Part("retrieval", (*common, "--port", str(one), "--drain-s", "0"), RETRIEVAL_SERVICES)
        for one in ports
    ]
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(RetrievalClient(f"127.0.0.1:{one}")) for one in ports
        ]
        try:
            await redis.start()
            await asyncio.gather(*(part.start() for part in parts))
            yield Routers(redis, parts, clients)
        finally:
            for part in (*parts, redis):
                await part.stop()
            with contextlib.suppress(NearlineError):
                name = collection_name("default", snapshot_id)
                await milvus.drop(name)
                await CollectionStates(milvus).remove(name)
            await milvus.close()


async def write(client: RetrievalClient, number: int, text: str, name: str = "") -> bytes:
    item = c.Item(
        id=name or f"n{number % 7}", text=text, vector=vector_of(number), attributes={"year": -1}
    )
    reply = await client.upsert_items([item])
    assert reply.results[0].outcome in (c.WriteOutcome.APPLIED, c.WriteOutcome.REPLACED)
    return reply.watermark


async def found(
    client: RetrievalClient, number: int, least: bytes, filter: Equals | None = None
) -> list[tuple[str, str | None]]:
    options = c.SearchOptions(k=1, mode=DENSE, payload=TEXT, min_watermark=least, filter=filter)
    reply = await client.search(c.Query(vector=vector_of(number)), options)
    return [(hit.id, hit.text) for hit in reply.hits]


async def test_writes_are_read_at_once(tmp_path: Path, milvus_uri: str) -> None:
    async with routers(tmp_path, milvus_uri) as running:
        (client,) = running.clients
        for number in range(100, 150):
            name = f"b{number % 5:02d}" if number % 3 == 0 else f"n{number % 7}"
            least = await write(client, number, f"write {number}", name)
            assert await found(client, number, least) == [(name, f"write {number}")]
        # Attributes alone; the item is otherwise as it was.
        attributes = c.Item(id="n1", attributes={"year": 7, "kind": None})
        changed = await client.upsert_items([attributes], only_attributes=True)
        least = changed.watermark
        (item,) = (await client.get_items(["n1"], min_watermark=least)).items
        assert item.attributes == {"year": 7} and item.text.startswith("write 1")
        assert item.version == changed.results[0].version
        hits = await found(client, 1, least, Equals("year", 7))
        assert [name for name, _ in hits] == ["b07"] or [name for name, _ in hits] == ["n1"]
        # Deleted: of the snapshot, and of what was written.
        least = (await client.delete_items(["n2", "b39"])).watermark
        left = await client.get_items(["n2", "b39", "b38"], min_watermark=least)
        assert [one.id for one in left.items] == ["b38"]
        # What expires goes without a change.
        expires = datetime.now(UTC) + timedelta(seconds=1.5)
        item = c.Item(id="n9", text="soon gone", vector=vector_of(900), expires=expires)
        least = (await client.upsert_items([item])).watermark
        assert await found(client, 900, least) == [("n9", "soon gone")]
        async with asyncio.timeout(10):
            while await found(client, 900, least) == [("n9", "soon gone")]:
                await asyncio.sleep(0.02)
        assert datetime.now(UTC) >= expires
        # What Milvus cannot hold is refused before it is in the log.
        item = c.Item(id="no\x01id", text="x", vector=vector_of(1))
        (result,) = (await client.upsert_items([item])).results
        assert result.outcome is c.WriteOutcome.REJECTED
        assert "is not allowed in ids with Milvus; use another id" in result.message


class Caller:
    """Writes and searches without a pause, as a careful caller does; keeps what was acknowledged.

    texts: By item, the text acknowledged last. errors: Of searches.
    """

    def __init__(self, client: RetrievalClient) -> None:
        self.client = client
        self.texts: dict[str, str] = {}
        self.told: list[Watermark] = []
        self.errors: list[NearlineError] = []
        self.searches = 0
        self.stopped = False

    async def write(self) -> None:
        """Writes until it is stopped."""
        number = 1_000 + len(self.told)
        while not self.stopped:
            number += 1
            name, text = f"w{number % 11}", f"write {number}"
            item = c.Item(id=name, text=text, vector=vector_of(number))
            while True:
                try:
                    reply = await self.client.upsert_items([item], idempotency_key=str(number))
                    break
                except PASSING:
                    await asyncio.sleep(0.05)
            watermark = decode_watermark(reply.watermark)
            assert watermark is not None
            self.texts[name] = text
            self.told.append(watermark)
            await asyncio.sleep(0.01)

    async def search(self) -> None:
        """Searches until it is stopped."""
        while not self.stopped:
            number = self.searches % _ITEMS
            options = c.SearchOptions(k=3, mode=DENSE)
            try:
                reply = await self.client.search(
                    c.Query(vector=vector_of(number)), options, timeout_s=10.0
                )
                assert reply.hits
                self.searches += 1
            except NearlineError as error:
                self.errors.append(error)
            await asyncio.sleep(0.01)

    async def check(self, client: RetrievalClient) -> None:
        """Checks that all acknowledged writes can be read, retrying like a caller."""
        least = merge_watermarks(tuple(dict.fromkeys(self.told))).encode()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _RECOVERY_S
        while True:
            try:
                reply = await client.get_items(
                    sorted(self.texts), min_watermark=least, timeout_s=20.0
                )
                break
            except PASSING as error:
                if loop.time() > give_up:
                    raise AssertionError(repr(error)) from error
                await asyncio.sleep(0.05)
        assert {item.id: item.text for item in reply.items} == self.texts


async def until(what: object, reached: object, running: Routers) -> None:
    """Waits until a condition holds."""
    assert callable(reached)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not reached():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}\n{running.logs()}") from None


@pytest.mark.timeout(420)
async def test_a_killed_milvus_keeps_all_acknowledged_writes(
    tmp_path: Path, own_server: Server
) -> None:
    async with routers(tmp_path, own_server.uri) as running:
        (client,) = running.clients
        caller = Caller(client)
        tasks = [asyncio.ensure_future(caller.write()), asyncio.ensure_future(caller.search())]
        for _ in range(2):
            writes, searches = len(caller.told), caller.searches
            await until(
                "nothing is answered",
                lambda w=writes, s=searches: len(caller.told) > w + 20 and caller.searches > s + 20,
                running,
            )
            caller.errors.clear()
            await asyncio.to_thread(own_server.kill)
            await until("no search fails", lambda: len(caller.errors) > 1, running)
            writes = len(caller.told)
            await until("writes are held up", lambda w=writes: len(caller.told) > w + 5, running)
            for error in caller.errors:
                assert isinstance(error, NotReady) and "Milvus" in error.message, error
            caller.errors.clear()
            await asyncio.to_thread(own_server.start)
        searches = caller.searches
        await until("no search is answered", lambda: caller.searches > searches + 20, running)
        caller.stopped = True
        await asyncio.gather(*tasks)
        await caller.check(client)


async def test_a_killed_router_keeps_all_acknowledged_writes(
    tmp_path: Path, milvus_uri: str
) -> None:
    async with routers(tmp_path, milvus_uri) as running:
        (client,) = running.clients
        caller = Caller(client)
        for _ in range(2):
            writing = asyncio.ensure_future(caller.write())
            writes = len(caller.told)
            await until("no writes", lambda w=writes: len(caller.told) > w + 20, running)
            await running.parts[0].kill()
            await running.parts[0].settled()
            writes = len(caller.told)
            await until("no writes", lambda w=writes: len(caller.told) > w + 5, running)
            caller.stopped = True
            await writing
            await caller.check(client)
            caller.stopped = False


async def test_one_of_two_routers_writes_and_the_other_takes_over(
    tmp_path: Path, milvus_uri: str
) -> None:
    async with routers(tmp_path, milvus_uri, 2) as running:
        for number in range(100, 120):
            least = await write(running.clients[number % 2], number, f"write {number}")
            for client in running.clients:
                assert await found(client, number, least) == [(f"n{number % 7}", f"write {number}")]
        writers = [number for number in range(2) if running.lines(number, _WRITING)]
        assert len(writers) == 1, running.logs()
        (writer,) = writers
        other = running.clients[1 - writer]
        caller = Caller(other)
        writing = asyncio.ensure_future(caller.write())
        await until("no writes", lambda: len(caller.told) > 10, running)
        await running.parts[writer].kill()
        # The other one, or the one that was killed once it is back.
        await until(
            "no one takes over", lambda: any(running.lines(n, _WRITING) for n in range(2)), running
        )
        caller.stopped = True
        await writing
        await caller.check(other)
        await running.parts[writer].settled()
        await caller.check(running.clients[writer])
