"""The Milvus client against real servers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from nearline.errors import NotReady, SettingsError, SnapshotGone, Unsupported
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.milvus.filters import quote
from retrieval.milvus.layout import make_key, parse_key
from retrieval.milvus.open_client import open_client
from retrieval.milvus.rows import make_rows
from tests.milvus.servers import Server
from tests.retrieval.index.filtering.filter_strategies import DECLARED, HOSTILE, TIME

pymilvus = pytest.importorskip("pymilvus", reason="no client of Milvus: make test-milvus")
from retrieval.milvus.client import MilvusClient  # noqa: E402
from retrieval.milvus.schema import Bm25  # noqa: E402

pytestmark = [pytest.mark.milvus, pytest.mark.service, pytest.mark.timeout(300)]
NAME = f"nearline_test_client_{os.getpid()}"
DIM = 4
TEXT = "\n one. 漢字 😀 two.  "
BACK_S = 120.0


def rows(document_id: str, number: int = 0, *, words: bool = False) -> list[dict[str, Any]]:
    """Returns two rows of a document, whose vectors have its number."""
    return make_rows(
        document_id,
        'a "title"',
        TEXT,
        {"kind": document_id, "price": 3, "made": TIME, "year_list": [number], "other": "x\0y"},
        version=number,
        expires=None,
        bounds=np.array([[2, 9], [7, 15]]),
        vectors=np.array([[number, 1, 0, 0], [number, 0, 0, 0.1]], np.float32),
        kinds=DECLARED,
        analyser=Analyser("none") if words else None,
    )


@pytest_asyncio.fixture
async def chunks(milvus: MilvusClient) -> AsyncIterator[str]:
    """Returns an empty collection, loaded."""
    await milvus.drop(NAME)
    await milvus.create(NAME, DIM, "IP", bm25=None, index="FLAT")
    await milvus.load(NAME)
    yield NAME
    await milvus.drop(NAME)


async def test_rows_come_back_as_they_were_written(milvus: MilvusClient, chunks: str) -> None:
    ids = [*HOSTILE[:-1], "a", "a/b", "é"]
    written = {row["key"]: row for one in ids for row in rows(one)}
    await milvus.insert(chunks, list(written.values()))
    fields = list(next(iter(written.values())))
    found = await milvus.query(chunks, "", fields, seen=0)
    assert [row["key"] for row in found] == sorted(written)
    for row in found:
        wanted = written[row["key"]]
        assert np.asarray(row["vector"], np.float32).tolist() == wanted["vector"].tolist()
        assert {f: row[f] for f in fields if f != "vector"} == {
            f: wanted[f] for f in fields if f != "vector"
        }


async def test_a_refused_delete_raises(milvus: MilvusClient) -> None:
    with pytest.raises(SnapshotGone):
        await milvus.delete("nearline_test_missing", 'key in ["a"]')


async def test_rows_are_read_in_the_order_of_keys_and_counted(
    milvus: MilvusClient, chunks: str
) -> None:
    ids = [f"d{number:03d}" for number in range(300)]
    shuffled = np.random.default_rng(1).permutation(ids).tolist()
    for part in (shuffled[:150], shuffled[150:]):
        await milvus.insert(chunks, [row for one in part for row in rows(one)])
    found = await milvus.query(chunks, "", ["chunk"], seen=0)
    assert [parse_key(row["key"]) for row in found] == [(one, n) for one in ids for n in (0, 1)]
    last = quote(make_key("d100", 999_999))
    after = await milvus.query(chunks, f"key > {last}", [], limit=3, seen=0)
    assert [parse_key(row["key"]) for row in after] == [("d101", 0), ("d101", 1), ("d102", 0)]
    assert await milvus.count(chunks, seen=0) == 600
    assert await milvus.count(chunks, "chunk == 0", seen=0) == 300
    assert await milvus.count(chunks, 'document in ["d001", "none"]', seen=0) == 2
    assert await milvus.count(chunks, "chunk < 0", seen=0) == 0


async def test_a_read_sees_what_was_written_up_to_its_timestamp(
    milvus: MilvusClient, chunks: str
) -> None:
    for number in range(15):
        seen = await milvus.upsert(chunks, rows("a", number))
        found = await milvus.query(chunks, 'document == "a"', ["version"], seen=seen)
        assert [row["version"] for row in found] == [number, number]
        (hits,) = await milvus.search(
            chunks, np.array([[1, 0, 0, 0]], np.float32), 5, fields=["version"], seen=seen
        )
        assert [hit.fields["version"] for hit in hits] == [number, number]
        seen = await milvus.delete(chunks, 'document == "a" and chunk == 1')
        assert await milvus.count(chunks, seen=seen) == 1
        seen = await milvus.delete(chunks, 'document == "a"')
        assert await milvus.count(chunks, seen=seen) == 0


async def test_a_search_returns_the_best_rows_with_their_products(
    milvus: MilvusClient, chunks: str
) -> None:
    await milvus.insert(chunks, [row for n in range(50) for row in rows(f"d{n:02d}", n)])
    queries = np.array([[1, 0, 0, 0], [0, 1, 0, 0.5]], np.float32)
    first, second = await milvus.search(
        chunks, queries, 3, expression="chunk == 0 and version < 40", fields=["version"], seen=0
    )
    assert [(hit.key, hit.score, hit.fields["version"]) for hit in first] == [
        ("d39\x01000000", 39.0, 39),
        ("d38\x01000000", 38.0, 38),
        ("d37\x01000000", 37.0, 37),
    ]
    assert [hit.score for hit in second] == [1.0, 1.0, 1.0]


async def test_lexical_search_works_on_servers_with_bm25(milvus: MilvusClient) -> None:
    able = await milvus.capabilities()
    bm25 = Bm25(1.2, 0.75)
    name = f"{NAME}_words"
    if not able.words:
        with pytest.raises(Unsupported, match=r"v2\.3\.5.*2\.5 or newer"):
            await milvus.create(name, DIM, "IP", bm25=bm25)
        return
    await milvus.create(name, DIM, "IP", bm25=bm25)
    try:
        await milvus.load(name)
        await milvus.insert(name, [row for one in "ab" for row in rows(one, words=True)])
        one, two, none = await milvus.search(name, ["one", "字 two", "three"], 9, seen=0)
        assert {hit.key[-1] for hit in one} == {"0"}
        assert {hit.key[-1] for hit in two} == {"0", "1"}
        assert none == []
        assert all(hit.score > 0 for hit in (*one, *two))
    finally:
        await milvus.drop(name)


async def test_a_missing_collection_raises_snapshot_gone(milvus: MilvusClient) -> None:
    with pytest.raises(SnapshotGone, match="retry the whole request"):
        await milvus.count("nearline_none")
    with pytest.raises(SnapshotGone):
        await milvus.search("nearline_none", np.zeros((1, 2), np.float32), 1)
    await milvus.drop("nearline_none")


async def test_the_client_reconnects_after_an_outage(own_server: Server) -> None:
    client = MilvusClient(own_server.uri)
    await client.create(NAME, DIM, "IP", bm25=None)
    await client.load(NAME)
    await client.insert(NAME, rows("a"))
    assert await client.count(NAME, seen=0) == 2
    own_server.kill()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(NotReady, match="does not answer") as caught:
            await client.count(NAME)
        # The first call finds out, those after it are told.
        assert time.monotonic() - began < 2
    assert caught.value.retry_after_s is None, "gRPC would keep the caller waiting for so long"
    assert client.outage
    await asyncio.to_thread(own_server.start)
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                assert await client.count(NAME, seen=0) == 2
                break
            except NotReady:
                await asyncio.sleep(0.2)
    assert not client.outage
    await client.upsert(NAME, rows("b"))
    assert await client.count(NAME, seen=0) == 4
    await client.close()


async def test_lite_runs_in_this_process_for_a_file(tmp_path: Path) -> None:
    client = open_client(str(tmp_path / "lite.db"))
    assert (await client.capabilities()).lite
    await client.create(NAME, DIM, "IP", bm25=None)
    await client.load(NAME)
    await client.insert(NAME, rows("a"))
    assert await client.count(NAME, seen=0) == 2
    await client.close()


async def test_an_unreachable_server_is_named() -> None:
    client = open_client("http://127.0.0.1:1")
    with pytest.raises(NotReady, match=r"127\.0\.0\.1:1 does not answer.*correct --milvus-uri"):
        await client.list_collections()
    await client.close()
    with pytest.raises(SettingsError, match="http://HOST:PORT"):
        open_client("127.0.0.1:19530")


async def test_an_idle_connection_sends_few_pings(
    milvus_uri: str,
) -> None:
    # A server of the defaults of gRPC takes one in five minutes; the client would send it thirty.
    client = open_client(milvus_uri, "")
    try:
        await client._connection.version()
        options = client._connection._client._handler._grpc_options  # type: ignore[union-attr]
        assert options["grpc.keepalive_time_ms"] >= 300_000
        assert not options["grpc.keepalive_permit_without_calls"]
    finally:
        await client.close()
