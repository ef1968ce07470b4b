"""Another embedder is tried, promoted and rolled back while people search and items change."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import AdminClient, EmbeddingClient, RetrievalClient
from nearline.errors import NearlineError
from nearline.v1 import release_pb2
from nearline_cli.local.processes import (
    embedding_process,
    free_port,
    redis_process,
    retrieval_process,
)
from tests.live.rolling import AT_ONCE, QUICK
from tests.redis_server import needs_redis
from tests.retrieval.small_snapshots import FORCED
from tests.scale import nightly

pytestmark = [pytest.mark.service, needs_redis]
_ANIMALS = ("badger", "heron", "lynx", "newt", "otter", "raven", "stoat", "vole", "wren", "adder")
_PLACES = ("river", "forest", "garden", "harbour", "meadow", "quarry", "valley", "village")
_DEEDS = ("sleeps near the", "was seen by the", "never crosses the", "hunts along the")
TEXTS = {
    f"{animal}-{place}-{number}": f"The {animal} {deed} {place}."
    for animal in _ANIMALS
    for place in _PLACES
    for number, deed in enumerate(_DEEDS)
}


class Load:
    """People who search for what is there, and for what they have just written."""

    def __init__(self, client: RetrievalClient) -> None:
        self._client = client
        self.failed: Counter[str] = Counter()
        self.snapshots: Counter[str] = Counter()
        self.arms: Counter[c.Arm | None] = Counter()
        self.fingerprints: dict[str, set[str]] = {}
        self.not_found: list[str] = []
        self.written: list[str] = []
        self.asked = 0

    async def search(self, text: str, wanted: str, least: bytes = b"") -> None:
        """Searches; looks whether the item wanted is the first."""
        self.asked += 1
        options = c.SearchOptions(
            k=3, mode=c.SearchMode.DENSE, min_watermark=least, unit=f"u{self.asked}"
        )
        try:
            reply = await self._client.search(c.Query(text=text), options, timeout_s=10.0)
        except NearlineError as error:
            self.failed[f"search: {type(error).__name__} {error.message[:300]}"] += 1
            return
        info = reply.info
        self.snapshots[info.snapshot_id] += 1
        self.arms[info.arm] += 1
        self.fingerprints.setdefault(info.snapshot_id, set()).add(info.fingerprint)
        if wanted not in [hit.id for hit in reply.hits]:
            self.not_found.append(f"{wanted} in {info.snapshot_id}")

    async def write(self) -> None:
        """Writes an item, and searches for it."""
        number = len(self.written)
        name = f"new-{number}"
        text = f"Ship number {number} of the line {_ANIMALS[number % 10]} carries grain."
        self.written.append(name)
        try:
            reply = await self._client.upsert_items([c.Item(id=name, text=text)], timeout_s=10.0)
        except NearlineError as error:
            self.failed[f"upsert: {type(error).__name__} {error.message[:300]}"] += 1
            return
        await self.search(text, name, reply.watermark)

    async def until(self, done: Callable[[], bool], *, at_least: int, most_s: float = 60.0) -> None:
        """Goes on until something is so, and for some searches: at most 30 a second.

        A tenth of them are for items written just before.
        """
        loop = asyncio.get_running_loop()
        start, first, names, number = loop.time(), self.asked, list(TEXTS), 0
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as running:
            while not done() or self.asked < first + at_least:
                assert loop.time() < start + most_s, f"not after {most_s:g} s: {vars(self)}"
                await asyncio.sleep(start + number / 30 - loop.time())
                await places.acquire()
                name = names[number * 7 % len(names)]
                asking = self.write() if number % 10 == 9 else self.search(TEXTS[name], name)
                running.create_task(asking).add_done_callback(lambda _: places.release())
                number += 1


@nightly
@pytest.mark.timeout(300)
async def test_a_model_of_fewer_dimensions_goes_out_and_back_under_load(tmp_path: Path) -> None:
    store = tmp_path / "store"
    metrics_port = free_port()
    async with (
        embedding_process() as full,
        embedding_process(["--dimensions", "128"]) as short,
        EmbeddingClient(full.address) as full_client,
        EmbeddingClient(short.address) as short_client,
        redis_process(tmp_path / "redis") as redis,
    ):
        items = [c.Item(id=name, text=text) for name, text in TEXTS.items()]
        made: list[str] = []
        for embedder in (full_client, short_client):
            options = BuildOptions(
                store=str(store), promote=not made, index=IndexOptions(factory="Flat")
            )
            made.append((await build_snapshot(items, options, embedder)).snapshot_id)
        old, new = made
        words = [*QUICK, "--redis", redis, "--metrics-port", str(metrics_port)]
        embedding = f"{full.address},{short.address}"
        async with (
            retrieval_process(store, words, embedding=embedding) as router,
            RetrievalClient(router.address) as client,
            AdminClient(router.address) as admin,
        ):
            load = Load(client)
            # Written before anybody knew of the other model: the canary embeds these by itself.
            await load.until(lambda: len(load.written) >= 5, at_least=50)
            rollout = release_pb2.Rollout(split_by=release_pb2.SPLIT_BY_REQUEST)
            # Of two models on two cores one may well be slower.
            rollout.limits.latency_ratio = 20
            await admin.split(new, 0.5, rollout=rollout, gate=FORCED, why="smaller vectors")
            await load.until(lambda: load.arms[c.Arm.CANARY] >= 50, at_least=200)
            embedded = _embedded_again(metrics_port)
            await load.until(lambda: True, at_least=100)
            # What is written now carries the vectors of both.
            assert _embedded_again(metrics_port) == embedded > 0
            await admin.promote(new)
            before = load.snapshots[new]
            await load.until(lambda: load.snapshots[new] > before + 100, at_least=100)
            await admin.roll_back()
            before = load.snapshots[old]
            await load.until(lambda: load.snapshots[old] > before + 100, at_least=100)
            assert load.failed == Counter()
            assert load.not_found == []
            assert {len(prints) for prints in load.fingerprints.values()} == {1}
            assert load.fingerprints[old] != load.fingerprints[new]
            found = await client.get_items(load.written)
            assert [item.id for item in found.items] == load.written


def _embedded_again(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    values = [one for one in lines if one.startswith("nearline_retrieval_chunks_embedded_total{")]
    return sum(float(one.rsplit(" ", 1)[1]) for one in values)
