"""Tests of the limits on the cost of a search: hits, groups, and time of the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearline import contract as c
from nearline.v1 import snapshot_pb2
from retrieval.protocols.shard import ShardHits
from retrieval.search import executor
from retrieval.search.diversity import diverse_order
from retrieval.shards.local_shard import LocalShard
from tests.retrieval.conftest import OpenService
from tests.retrieval.small_snapshots import Document, write_snapshot

ONE = c.Query(vector=np.ones(4, np.float32))
KIND = snapshot_pb2.AttributeField(name="kind", kind=snapshot_pb2.AttributeField.KIND_INT)


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    documents = [
        Document(
            id=f"d{number:03d}",
            vectors=rng.normal(size=(1, 4)).astype(np.float32),
            text="x" * 10,
            attributes={"kind": number % 50},
        )
        for number in range(150)
    ]
    write_snapshot(tmp_path, documents, fields=[KIND])
    return tmp_path


class WatchedShard:
    """A shard that counts the searches that run at once."""

    def __init__(self, shard: LocalShard) -> None:
        self._shard = shard
        self.running = 0
        self.most = 0
        self.searches = 0

    def search(self, *asked: Any, **more: Any) -> asyncio.Future[Sequence[ShardHits]]:
        self.searches += 1
        self.running += 1
        self.most = max(self.most, self.running)
        found = self._shard.search(*asked, **more)
        found.add_done_callback(self._end)
        return found

    def _end(self, found: object) -> None:
        self.running -= 1

    def __getattr__(self, name: str) -> object:
        return getattr(self._shard, name)


async def test_the_event_loop_turns_while_diverse_hits_are_selected(
    store: Path, open_service: OpenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    select, turned = diverse_order, threading.Event()

    def observed(*args: Any, **more: Any) -> list[int]:
        loop.call_soon_threadsafe(turned.set)
        assert turned.wait(10), "the event loop stands still"
        return select(*args, **more)

    monkeypatch.setattr(executor, "diverse_order", observed)
    async with open_service(store) as service:
        reply = await service.search(ONE, c.SearchOptions(k=10, diversity=0.5))
    assert len(reply.hits) == 10


async def test_beyond_the_budget_of_comparisons_the_best_other_hits_follow_by_score(
    store: Path, open_service: OpenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "diverse_depth", lambda k, queries: min(k, 5))
    async with open_service(store) as service:
        plain = (await service.search(ONE, c.SearchOptions(k=100))).hits
        diverse = (await service.search(ONE, c.SearchOptions(k=100, diversity=0.7))).hits
    ids = [hit.id for hit in diverse]
    assert len(set(ids)) == 100
    assert ids[:5] != [hit.id for hit in plain[:5]]
    assert [hit.score for hit in diverse[5:]] == sorted(
        (hit.score for hit in diverse[5:]), reverse=True
    )
    assert all(hit.vector is None for hit in diverse)


async def test_few_groups_are_filled_at_a_time(store: Path, open_service: OpenService) -> None:
    async with open_service(store) as service:
        (served,) = service.collections
        watched = WatchedShard(served.shards[0])  # type: ignore[arg-type]
        served.shards = (watched,)  # type: ignore[assignment]
        options = c.SearchOptions(k=50, grouping=c.Grouping("kind", 2))
        reply = await service.search(ONE, options)
    assert watched.searches == 51
    assert watched.most <= 16
    assert len(reply.hits) == 100
    groups = [hit.group for hit in reply.hits]
    assert groups[::2] == groups[1::2] and len(set(groups)) == 50
