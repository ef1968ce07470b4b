"""Filtered searches over several built shards, compared with plain Python."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import (
    Attributes,
    AttributeValue,
    Facet,
    Grouping,
    Item,
    PlanStrategy,
    Query,
    SearchOptions,
)
from nearline.errors import InvalidRequest
from nearline.filter_text import parse_filter
from tests.retrieval.conftest import OpenService

ITEMS = 400


@pytest.fixture
def items(rng: np.random.Generator) -> list[Item]:
    # Small integers: scores are exact, and many are equal.
    matrix = rng.integers(-2, 3, (ITEMS, 6)).astype(np.float32)
    return [
        Item(id=f"i{n:03}", attributes=attributes_of(n), vector=matrix[n]) for n in range(ITEMS)
    ]


def attributes_of(n: int) -> Attributes:
    shared: dict[str, AttributeValue] = {"kind": "abc"[n % 3], "year": 1990 + n % 40}
    return shared | ({"tags": ["x", "y"][: n % 4]} if n % 2 else {})


async def build(folder: Path, items: list[Item]) -> None:
    await build_snapshot(
        items,
        BuildOptions(
            store=str(folder),
            shards=3,
            index=IndexOptions(metric="inner_product"),
            golden_queries=5,
        ),
    )


def best(items: list[Item], query: NDArray[np.float32], k: int) -> list[str]:
    scores = [(-float(np.dot(item.vector, query)), item.id) for item in items]  # type: ignore[arg-type]
    return [name for _, name in sorted(scores)[:k]]


async def test_filtered_searches_counts_and_lists_match_plain_python(
    tmp_path: Path, items: list[Item], open_service: OpenService
) -> None:
    await build(tmp_path, items)
    text = "kind != a AND (year 2000 TO 2010 OR tags = y)"
    chosen = [
        item
        for item in items
        if item.attributes["kind"] != "a"
        and (
            2000 <= item.attributes["year"] <= 2010  # type: ignore[operator]
            or "y" in item.attributes.get("tags", [])  # type: ignore[operator]
        )
    ]
    query = np.array([1, 2, 0, -1, 1, 1], np.float32)
    wanted = SearchOptions(k=20, filter=parse_filter(text), explain=True)
    async with open_service(tmp_path) as service:
        reply = await service.search(Query(vector=query), wanted)
        counted = await service.count_items(
            parse_filter(text), [Facet(field="kind"), Facet(field="tags")]
        )
        page = await service.list_items(filter=parse_filter(text), page_size=ITEMS)
    assert [hit.id for hit in reply.hits] == best(chosen, query, 20)
    assert sum(plan.matches for plan in reply.results[0].plans) == len(chosen)
    assert {plan.strategy for plan in reply.results[0].plans} == {PlanStrategy.EXACT}
    assert [item.id for item in page.items] == [item.id for item in chosen]
    assert counted.count == len(chosen)
    kinds, tags = counted.facets
    assert dict(kinds.counts) == Counter(item.attributes["kind"] for item in chosen)
    lists = [item.attributes.get("tags") or [] for item in chosen]
    assert dict(tags.counts) == Counter(tag for some in lists for tag in some)  # type: ignore[union-attr]
    assert tags.missing == sum(not some for some in lists)


async def test_groups_contain_only_items_that_match_the_filter(
    tmp_path: Path, items: list[Item], open_service: OpenService
) -> None:
    await build(tmp_path, items)
    query = np.array([1, 0, 0, 2, 1, 0], np.float32)
    options = SearchOptions(k=2, filter=parse_filter("kind != a"), grouping=Grouping("kind", 2))
    async with open_service(tmp_path) as service:
        reply = await service.search(Query(vector=query), options)
    firsts = {kind: [i for i in items if i.attributes["kind"] == kind] for kind in "bc"}
    wanted = {kind: best(mine, query, 2) for kind, mine in firsts.items()}
    found = {kind: [hit.id for hit in reply.hits if hit.group == kind] for kind in "bc"}
    assert found == wanted and len(reply.hits) == 4


async def test_an_unknown_attribute_is_an_invalid_request_and_not_a_missing_shard(
    tmp_path: Path, items: list[Item], open_service: OpenService
) -> None:
    await build(tmp_path, items)
    options = SearchOptions(filter=parse_filter("kin = a"))
    async with open_service(tmp_path) as service:
        with pytest.raises(InvalidRequest, match="did you mean 'kind'"):
            await service.search(Query(vector=np.ones(6, np.float32)), options)
        with pytest.raises(InvalidRequest, match="kind string, but the filter has an int"):
            await service.count_items(parse_filter("kind = 1"))
