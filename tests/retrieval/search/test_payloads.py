"""Payloads of chosen hits: each goes to its hit, and hits that are gone are removed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import NotReady, ShardsUnavailable
from retrieval.protocols.shard import ItemsRequest, ShardItems
from retrieval.search.collection import ServedCollection
from retrieval.search.payloads import fill_payloads
from retrieval.search.request_context import RequestContext
from tests.retrieval.fakes import FailingShard, SilentShard

TEXT = c.SearchOptions(payload=frozenset({c.PayloadField.TEXT}))


class ChunkShard(SilentShard):
    """A shard of documents with some chunks each; the text of a chunk names it."""

    def __init__(self, **chunks: int) -> None:
        self._chunks = chunks
        self.requests: list[ItemsRequest] = []

    async def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> ShardItems:
        self.requests.append(request)
        return ShardItems(
            [
                c.Item(
                    id=one,
                    title=f"title of {one}",
                    text=f"{one}-{chunk}",
                    attributes={"n": chunk},
                    vector=np.full(2, chunk, np.float32),
                    section=(f"# above {one}",)
                    if c.PayloadField.SECTION in request.payload
                    else (),
                )
                for one, chunk in zip(request.ids, request.chunks, strict=True)
                if chunk < self._chunks.get(one, 0)
            ]
        )


def served(*shards: SilentShard) -> ServedCollection:
    collection = SimpleNamespace(name="default", snapshot_id="s1", shards=shards)
    return cast(ServedCollection, collection)


def hits(*keys: tuple[int, str, int]) -> list[tuple[int, c.Hit]]:
    return [(shard, c.Hit(id=one, score=1.0, chunk=n, start=0, end=1)) for shard, one, n in keys]


def texts(ranked: Sequence[tuple[int, c.Hit]]) -> list[str | None]:
    return [hit.text for _, hit in ranked]


async def test_equal_hits_of_several_lists_are_read_once_and_filled_everywhere() -> None:
    zero, one = ChunkShard(a=2), ChunkShard(b=3)
    lists = [hits((0, "a", 1), (1, "b", 2), (1, "b", 0)), hits((1, "b", 2), (0, "a", 1))]
    await fill_payloads(served(zero, one), lists, TEXT, RequestContext())
    assert [texts(ranked) for ranked in lists] == [["a-1", "b-2", "b-0"], ["b-2", "a-1"]]
    assert [(list(r.ids), list(r.chunks)) for r in one.requests] == [(["b", "b"], [2, 0])]
    assert len(zero.requests) == 1


@pytest.mark.parametrize("field", list(c.PayloadField))
async def test_only_requested_fields_are_filled(field: c.PayloadField) -> None:
    ranked = hits((0, "a", 1))
    options = c.SearchOptions(payload=frozenset({field}))
    await fill_payloads(served(ChunkShard(a=2)), [ranked], options, RequestContext())
    ((_, hit),) = ranked
    filled = {
        c.PayloadField.TITLE: hit.title == "title of a",
        c.PayloadField.TEXT: hit.text == "a-1",
        c.PayloadField.ATTRIBUTES: bool(hit.attributes),
        c.PayloadField.VECTOR: hit.vector is not None,
        c.PayloadField.SECTION: hit.section == ("# above a",),
    }
    assert [one for one, is_filled in filled.items() if is_filled] == [field]


async def test_hits_of_deleted_and_shortened_documents_are_removed() -> None:
    # Of four chunks, "short" has two left.
    shard = ChunkShard(a=3, short=2)
    ranked = hits((0, "short", 3), (0, "a", 2), (0, "short", 1), (0, "gone", 0), (0, "short", 0))
    other = hits((0, "gone", 0), (0, "a", 0))
    await fill_payloads(served(shard), [ranked, other], TEXT, RequestContext())
    assert texts(ranked) == ["a-2", "short-1", "short-0"]
    assert texts(other) == ["a-0"]


async def test_hits_of_a_lost_shard_are_removed_and_the_shard_is_recorded() -> None:
    collection = served(ChunkShard(a=1), FailingShard(NotReady("gone")))
    ranked, context = hits((1, "b", 0), (0, "a", 0)), RequestContext()
    await fill_payloads(collection, [ranked], TEXT, context)
    assert texts(ranked) == ["a-0"] and list(context.failures) == [1]
    whole = c.SearchOptions(payload=TEXT.payload, require_full_coverage=True)
    with pytest.raises(ShardsUnavailable, match="1 of 2 shards"):
        await fill_payloads(collection, [hits((1, "b", 0), (0, "a", 0))], whole, RequestContext())


async def test_lists_without_hits_need_no_shard() -> None:
    lists: list[list[tuple[int, c.Hit]]] = [[], []]
    await fill_payloads(served(), lists, TEXT, RequestContext())
    assert lists == [[], []]
