"""Lists and counts over several shards, whose answers are given."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest, SnapshotGone
from nearline.filters import Equals
from retrieval.protocols.shard import (
    CountRequest,
    FieldCounts,
    ScanRequest,
    ShardCounts,
    ShardItems,
)
from retrieval.search.collection import ServedCollection
from retrieval.search.listing import Page, count_items, read_page, snapshot_of_token
from retrieval.search.request_context import RequestContext
from tests.retrieval.fakes import SilentShard

DAYS = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3)]


class FixedShard(SilentShard):
    """A shard with some items, and with the same counts for every field."""

    def __init__(self, ids: Sequence[str] = (), counts: Sequence[c.Scalar] = ()) -> None:
        self._ids = sorted(ids)
        self._counts = dict.fromkeys(counts, 1)

    async def scan(
        self, snapshot_id: str, request: ScanRequest, deadline: float | None = None
    ) -> ShardItems:
        after = [one for one in self._ids if one > request.after_id]
        return ShardItems([c.Item(id=one) for one in after[: request.limit]])

    async def count(
        self, snapshot_id: str, request: CountRequest, deadline: float | None = None
    ) -> ShardCounts:
        return ShardCounts(3, [FieldCounts(self._counts, 2) for _ in request.fields])


def served(*shards: FixedShard) -> ServedCollection:
    kinds = dict.fromkeys(("f", "g"), "string")
    collection = SimpleNamespace(
        name="default", snapshot_id="s1", shards=shards, attribute_kinds=kinds
    )
    return cast(ServedCollection, collection)


async def page_of(
    collection: ServedCollection, size: int, token: str = "", filter: c.Filter | None = None
) -> Page:
    return await read_page(
        collection,
        size=size,
        token=token,
        filter=filter,
        payload=frozenset(),
        context=RequestContext(),
    )


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b", "c"],
        [-2, 7, 10],
        [-1.5, 0.5, 2.0],
        DAYS,
        [False, True],
    ],
    ids=["strings", "integers", "decimals", "times", "booleans"],
)
async def test_values_that_are_equally_frequent_are_in_ascending_order(
    values: list[c.Scalar],
) -> None:
    collection = served(FixedShard(counts=values[::-2]), FixedShard(counts=values[-2::-2]))
    facet = c.Facet(field="f")
    total, (counts,) = await count_items(collection, None, [facet], RequestContext())
    assert list(counts.counts) == [(value, 1) for value in values]
    assert (total, counts.distinct, counts.missing) == (6, len(values), 4)


@pytest.mark.parametrize(
    ("limit", "allowed"), [(0, False), (1, True), (1_000, True), (1_001, False)]
)
async def test_a_facet_has_between_one_and_a_thousand_values(limit: int, allowed: bool) -> None:
    collection = served(FixedShard(counts=["a", "b"]))
    facets = [c.Facet(field="f"), c.Facet(field="g", limit=limit)]
    if allowed:
        _, counts = await count_items(collection, None, facets, RequestContext())
        assert len(counts[1].counts) == min(limit, 2)
        return
    with pytest.raises(InvalidRequest, match=f"limit is {limit}") as caught:
        await count_items(collection, None, facets, RequestContext())
    assert caught.value.field == "facets[1].limit"


async def test_as_many_facets_as_the_limit_are_counted_and_no_more() -> None:
    collection = served(FixedShard(counts=["a"]))
    facets = [c.Facet(field="f")] * c.MAX_FACETS
    _, counts = await count_items(collection, None, facets, RequestContext())
    assert len(counts) == c.MAX_FACETS
    with pytest.raises(InvalidRequest) as caught:
        await count_items(collection, None, [*facets, facets[0]], RequestContext())
    assert caught.value.field == "facets"


@pytest.mark.parametrize(
    ("size", "allowed"), [(0, False), (1, True), (c.MAX_PAGE, True), (c.MAX_PAGE + 1, False)]
)
async def test_a_page_size_is_allowed_up_to_its_limits(size: int, allowed: bool) -> None:
    collection = served(FixedShard(ids=["a", "b"]))
    if allowed:
        assert len((await page_of(collection, size)).items) == min(size, 2)
        return
    with pytest.raises(InvalidRequest) as caught:
        await page_of(collection, size)
    assert caught.value.field == "page_size"


def token_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "a",
        "é",
        token_of("no JSON"),
        token_of('{"snapshot_id": "s1"}'),
        token_of('"s1"'),
        token_of('["s1", 7, ""]'),
        token_of('["s1", "a"]'),
        token_of('["s1", "a", "", ""]'),
        token_of('["s1", "\\ud800", ""]'),
        token_of("[" * 6_000),
        token_of(f'["s1", "{"a" * 8_192}", ""]'),
    ],
    ids=lambda token: token[:8],
)
async def test_a_token_that_was_not_issued_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="was not issued by this service") as caught:
        await page_of(served(FixedShard(ids=["a"])), 1, token)
    assert caught.value.field == "page_token"


async def test_a_token_continues_the_same_list_of_the_same_snapshot_only() -> None:
    collection = served(FixedShard(ids=["a", "b"]))
    token = (await page_of(collection, 1)).next_page_token
    assert snapshot_of_token(token) == "s1"
    with pytest.raises(InvalidRequest, match="a different filter"):
        await page_of(collection, 1, token, Equals("kind", "x"))
    collection.snapshot_id = "s2"
    with pytest.raises(SnapshotGone, match="the list began on snapshot s1, but s2 is served"):
        await page_of(collection, 1, token)
