"""Queries that were recorded often complete what others type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c, wire
from nearline.filters import Equals, Not, Words
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import write_traffic
from retrieval.embedders.endpoints import Embedders
from retrieval.monitoring.popular_queries import PopularQueries, popular_queries
from retrieval.router.service import RetrievalService
from tests.retrieval.monitoring.monitored_collection import served_collections
from tests.retrieval.small_snapshots import Document, write_snapshot


def recorded(text: str, filter: c.Filter | None = None) -> RecordedRequest:
    request = RecordedRequest()
    request.search.query.CopyFrom(wire.query_to_proto(c.Query(text=text)))
    request.search.options.CopyFrom(wire.options_to_proto(c.SearchOptions(filter=filter)))
    return request


NEWEST_FIRST = [
    *(recorded(text) for text in ("New York  hotel", "new york", "NEW YORK", "New-York hotel")),
    *(recorded(text) for text in ("new yorker", "new york hotel!", "newark", "new york", "?")),
    recorded("new y*"),
    # Not what the others searched for, though it has the same words.
    *(recorded(text) for text in ("new -york", '"new york"', '-"york" new')),
    recorded("new york", Equals("tenant", "a")),
    recorded("n" * 257),
]


def test_queries_of_the_same_words_count_together() -> None:
    found = [(one.text, one.times) for one in popular_queries(NEWEST_FIRST, 1)]
    assert found == [
        ("new york", 3),
        ("New York hotel", 3),
        ("new yorker", 1),
        ("newark", 1),
    ]
    assert [one.text for one in popular_queries(NEWEST_FIRST, 2)] == ["new york", "New York hotel"]
    assert popular_queries([], 1) == []


def test_a_text_whose_signs_mean_nothing_is_shown_as_it_was_written() -> None:
    written = [recorded(text) for text in ('12" single', '"12 single')]
    plain = recorded('"12" -single')
    plain.search.options.plain_text = True
    ((key, text, times),) = popular_queries([*written, plain], 1)
    assert (key, text, times) == ("12 single", '12" single', 3)


@pytest.fixture(name="store")
def give_store(tmp_path: Path) -> Store:
    vectors = np.eye(4, dtype=np.float32)
    documents = [
        Document(id=f"d{n}", vectors=vectors[n : n + 1], text=f"word{n}", bounds=[(0, 5)])
        for n in range(4)
    ]
    write_snapshot(tmp_path, documents, collection="shop", language="english")
    return Store(tmp_path)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("new", 9, ["new york", "New York hotel", "new yorker", "newark"]),
        ("NEW YORK", 9, ["new york", "New York hotel", "new yorker"]),
        ("new-york ", 9, ["New York hotel"]),
        ("new y", 1, ["new york"]),
        ("york", 9, []),
        ("z", 9, []),
        ("...", 9, []),
        ("\ud800", 9, []),
    ],
)
async def test_queries_that_begin_with_a_text_are_found_the_most_frequent_first(
    store: Store, text: str, limit: int, expected: list[str]
) -> None:
    write_traffic(store, "shop", NEWEST_FIRST[::-1])
    async with served_collections(store.files.folder) as collections:
        popular = PopularQueries(store, collections, 1)
        assert popular.complete("shop", text, limit) == []
        await popular.read()
        assert [one.text for one in popular.complete("shop", text, limit)] == expected
        assert popular.complete("another", text, limit) == []


async def test_only_callers_who_see_everything_are_shown_queries(store: Store) -> None:
    write_traffic(store, "shop", NEWEST_FIRST[::-1])
    restricted: c.Filter | None = None
    async with served_collections(store.files.folder) as collections:
        popular = PopularQueries(store, collections, 3)
        popular.start()
        await popular.read()
        service = RetrievalService(
            Embedders({}), collections, visible=lambda: restricted, popular=popular.complete
        )
        reply = await service.suggest("new", collection="shop")
        assert [one.count for one in reply.queries] == [3, 3]
        reply = await service.suggest("new", collection="shop", limit=1)
        assert len(reply.queries) == 1
        filtered = await service.suggest("new", collection="shop", filter=Not(Words("none")))
        assert not filtered.queries
        restricted = Not(Words("none"))
        assert not (await service.suggest("new", collection="shop")).queries
        await popular.close()


async def test_a_store_that_fails_leaves_the_queries_as_they_were(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_traffic(store, "shop", NEWEST_FIRST[::-1])
    async with served_collections(store.files.folder) as collections:
        popular = PopularQueries(store, collections, 1)
        await popular.read()
        (store.files.folder / "shop" / "traffic" / name).write_bytes(b"no gzip")
        await popular.read()
        assert popular.complete("shop", "newark", 1)
    assert "recorded queries cannot be read" in caplog.text
