"""Shards that are lost in the middle of a search, or that are all overloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nearline import contract as c
from nearline.errors import NotReady, Overloaded, ShardsUnavailable
from nearline.store.snapshot import shard_of
from retrieval.protocols.shard import Shard, ShardHits, ShardOptions, ShardQueries
from tests.retrieval.conftest import OpenService
from tests.retrieval.fakes import FailingShard
from tests.retrieval.router.test_service import ONE, break_shard, store

__all__ = ["store"]  # A fixture.


class SearchingShard(FailingShard):
    """A shard that searches like another one, and fails when items are read."""

    def __init__(self, shard: Shard, error: Exception) -> None:
        super().__init__(error)
        self._shard = shard

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> asyncio.Future[Sequence[ShardHits]]:
        return self._shard.search(snapshot_id, queries, options, deadline)


async def test_a_shard_that_is_lost_while_payloads_are_filled_lowers_coverage(
    store: Path, open_service: OpenService
) -> None:
    options = c.SearchOptions(k=60, diversity=0.1, payload=frozenset({c.PayloadField.TEXT}))
    async with open_service(store) as service:
        whole = await service.search(c.Query(vector=ONE), options)
        (served,) = service.collections
        assert {shard_of(hit.id, 4) for hit in whole.hits} == {0, 1, 2, 3}
        break_shard(service, 2, SearchingShard(served.shards[2], NotReady("gone")))
        part = await service.search(c.Query(vector=ONE), options)
        assert part.info.coverage == c.Coverage(
            shards_answered=3, shards_total=4, missing_shards=(2,)
        )
        assert {shard_of(hit.id, 4) for hit in part.hits} == {0, 1, 3}
        assert all(hit.text for hit in part.hits)
        with pytest.raises(ShardsUnavailable, match="shard 2: gone"):
            await service.search(c.Query(vector=ONE), replace(options, require_full_coverage=True))


async def test_an_overload_of_all_shards_is_an_overload_with_a_time(
    store: Path, open_service: OpenService
) -> None:
    async with open_service(store) as service:
        for number in range(4):
            full = Overloaded("full", retry_after_s=0.1 * number)
            break_shard(service, number, FailingShard(full))
        with pytest.raises(Overloaded, match="4 of 4 shards") as caught:
            await service.search(c.Query(vector=ONE))
    assert caught.value.retry_after_s == pytest.approx(0.3)
