"""Exports to real Milvus servers: complete or not served."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import pytest_asyncio

from nearline.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NearlineError,
    SnapshotMismatch,
    Unsupported,
)
from nearline.store.snapshot import KIND_NAMES, Store
from nearline.times import to_us
from retrieval.changelog.records import ChangeWrite
from retrieval.milvus.layout import NEVER_EXPIRES, collection_name, parse_key
from retrieval.milvus.rows import parse_attributes
from retrieval.protocols.watermark import Watermark
from tests.milvus.servers import ROOT, Server
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.retrieval.segment_pairs import FIELDS, random_document
from tests.retrieval.small_snapshots import Document, write_snapshot

pytest.importorskip("pymilvus", reason="no client of Milvus: make test-milvus")
from index_builder.execution.progress import NoProgress
from index_builder.indexes.milvus_writer import MilvusExport, export
from retrieval.milvus.change_merge import ChangeMerger
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import (
    CollectionState,
    CollectionStates,
    drop_removed,
    store_identity,
)
from retrieval.milvus.delta import follow_snapshot
from retrieval.milvus.live_collection import LiveCollection
from retrieval.milvus.reader import ReadContext
from tests.milvus.live_collection import Lock, delete, suspended

pytestmark = [pytest.mark.milvus, pytest.mark.service, pytest.mark.timeout(300)]
SOON = datetime(2100, 1, 1, tzinfo=UTC)


class Written(NamedTuple):
    """A snapshot of a few documents in a store, and a client of the Milvus that it goes to."""

    store: Store
    collection: str
    snapshot_id: str
    documents: list[Document]
    client: MilvusClient

    @property
    def name(self) -> str:
        return collection_name(self.collection, self.snapshot_id)

    async def export(self, index: str = "FLAT", *, again: bool = False) -> MilvusExport:
        return await export(
            self.store, self.collection, self.snapshot_id, self.client, index=index, overwrite=again
        )

    async def state(self) -> CollectionState:
        state = await CollectionStates(self.client).read(self.name)
        assert state is not None
        return state


@pytest_asyncio.fixture
async def written(tmp_path: Path, milvus: MilvusClient) -> AsyncIterator[Written]:
    """Returns a snapshot in three shards, with words and golden queries."""
    rng = np.random.default_rng(7)
    documents = [random_document(rng, f"d{number:03d}") for number in range(60)]
    documents[7] = replace(documents[7], expires=to_us(SOON), text=documents[7].text + " tail")
    golden = rng.normal(size=(12, 4)).astype(np.float32)
    snapshot_id = write_snapshot(
        tmp_path, documents, shards=3, fields=FIELDS, language="none", golden=golden
    )
    store = Store(tmp_path)
    yield Written(store, "default", snapshot_id, documents, milvus)
    await drop_all(store, milvus)


async def drop_all(store: Store, client: MilvusClient) -> None:
    states = CollectionStates(client)
    for name, state in (await states.read_all()).items():
        if state.store == store_identity(store):
            await client.drop(name)
            await states.remove(name)


async def test_a_complete_state_means_all_documents_are_exported(written: Written) -> None:
    done = await written.export()
    able = await written.client.capabilities()
    chunks = sum(len(document.vectors) for document in written.documents)
    assert (done.done, done.documents, done.chunks, done.recall) == (True, 60, chunks, 1.0)
    state = await written.state()
    assert (state.whole, state.index, state.words) == (True, "FLAT", able.words)
    assert (state.documents, state.chunks, state.expiring) == (60, chunks, True)
    assert state.single_valued == {"kind", "year"}
    fields = ["title", "gap", "passage", "rest", "attributes", "version", "expires", "vector"]
    rows = await written.client.query(written.name, "", fields, seen=0)
    kinds = {field.name: KIND_NAMES[field.kind] for field in FIELDS}
    at = 0
    for document in written.documents:
        for number, (start, stop) in enumerate(document.spans()):
            row = rows[at]
            at += 1
            assert parse_key(row["key"]) == (document.id, number)
            assert (row["title"], row["version"]) == (document.title, document.version)
            assert row["passage"] == document.text[start:stop]
            assert row["expires"] == (document.expires or NEVER_EXPIRES)
            assert parse_attributes(row["attributes"], kinds) == document.attributes
            assert row["vector"] == document.vectors[number].tolist()
        assert row["rest"] == (" tail" if document.id == "d007" else "")
    assert at == len(rows)


async def test_an_existing_export_is_left_unchanged(written: Written, tmp_path: Path) -> None:
    await written.export()
    state = await written.state()
    again = await written.export()
    assert (again.done, again.recall, again.chunks) == (False, None, state.chunks)
    assert await written.state() == state
    with pytest.raises(AlreadyExists, match=r"index FLAT.*not with index HNSW.*--again"):
        await written.export("HNSW")
    await CollectionStates(written.client).write(written.name, replace(state, store="s3://other"))
    with pytest.raises(AlreadyExists, match=r"from s3://other.*--again"):
        await written.export()
    assert (await written.export(again=True)).done
    state_now = await written.state()
    assert state_now == replace(state, started_us=state_now.started_us)
    assert state_now.started_us > state.started_us
    assert await written.client.count(written.name, seen=0) == state.chunks


async def test_a_graph_finds_what_the_snapshot_promises(
    tmp_path: Path, milvus: MilvusClient
) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(3_000, 16)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    documents = [
        Document(id=f"e{n:04d}", vectors=matrix[[n]], text="0123456789") for n in range(3_000)
    ]
    golden = rng.normal(size=(100, 16)).astype(np.float32)
    store = Store(tmp_path)
    ids = [
        write_snapshot(
            tmp_path,
            documents,
            factory="HNSW32,Flat",
            metric="cosine",
            golden=golden,
            promised_recall=promised,
        )
        for promised in (0.99, 2.0)
    ]
    done = await export(store, "default", ids[0], milvus)
    assert done.index == "HNSW"
    assert done.recall is not None and done.recall >= 0.95
    with pytest.raises(
        SnapshotMismatch, match=r"in Milvus, but the manifest promises 2\.000.*FLAT"
    ):
        await export(store, "default", ids[1], milvus)
    state = await CollectionStates(milvus).read(collection_name("default", ids[1]))
    assert state is not None and not state.whole
    await drop_all(store, milvus)


async def test_a_killed_export_is_incomplete_until_the_next_one(
    written: Written, milvus_uri: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.milvus.killed_export",
        written.store.url,
        written.collection,
        written.snapshot_id,
        milvus_uri,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    begun = await written.state()
    assert not begun.whole
    client = written.client
    assert (await written.export()).done
    assert (await written.state()).whole
    assert await client.count(written.name, seen=0) == begun.chunks


# A live writer takes over, writes the state that names the log, deletes, and writes the state. Then
# it takes over again, and notes that the log has lost this.
@pytest.mark.parametrize("at", range(6))
async def test_a_suspended_live_writer_does_not_change_the_next_export(
    written: Written, milvus_uri: str, at: int
) -> None:
    await written.export()
    log = MemoryLog()
    await log.append([ChangeWrite(delete("d007"), base_version=1)])
    start = Watermark(log.log_id)
    manifest = written.store.manifest("default", written.snapshot_id)
    merger = ChangeMerger("default", manifest, {}, None)
    async with suspended(milvus_uri, at) as client:
        collection = LiveCollection(
            client, written.name, ReadContext(), merger, Lock().lease, logs=list, remedy=""
        )
        shard = follow_snapshot(collection, lambda live: None)
        delta = await shard.new_delta(start, log)

        async def follow() -> None:
            await delta.apply(await log.read(dict(enumerate(start.positions))))
            delta.set_back("of a test")
            await shard.new_delta(start, log)

        following = asyncio.create_task(follow())
        await client.until_reached(following)
        await written.export(again=True)
        state = await written.state()
        client.resumed.set()
        await asyncio.wait((following,))
        # Whoever finds a new export notes nothing.
        assert isinstance(following.exception(), NearlineError) == (at != 4)
    assert await written.state() == state
    assert state.whole and not state.lost
    assert await written.client.count(written.name, seen=0) == state.chunks


# Its writes after it has taken over: the incomplete state, the rows, the complete state.
@pytest.mark.parametrize("at", range(2, 5))
async def test_a_suspended_export_does_not_change_the_next_one(
    written: Written, milvus_uri: str, at: int
) -> None:
    async with suspended(milvus_uri, at) as client:
        exporting = asyncio.create_task(written._replace(client=client).export())
        await client.until_reached(exporting)
        await written.export(again=True)
        # A live change.
        await written.client.delete(written.name, "chunk == 0")
        state, left = await written.state(), await written.client.count(written.name, seen=0)
        client.resumed.set()
        with pytest.raises(Conflict, match=r"another export .* began in the meantime"):
            await exporting
    assert await written.state() == state
    assert await written.client.count(written.name, seen=0) == left


async def test_only_collections_of_removed_snapshots_of_this_store_are_dropped(
    written: Written,
) -> None:
    client, states = written.client, CollectionStates(written.client)
    await written.export()
    state = await written.state()
    gone = replace(state, snapshot_id="20200101T000000Z-000000")
    others = {
        "nearline_test_gone": gone,
        "nearline_test_interrupted": replace(gone, whole=False),
        "nearline_test_other_store": replace(gone, store="s3://other"),
        "nearline_test_other_collection": replace(gone, collection="other"),
    }
    for name, other in others.items():
        await client.create(name, 2, "IP", bm25=None, index="FLAT")
        await states.write(name, other)
    await client.create("nearline_test_unknown", 2, "IP", bm25=None, index="FLAT")
    dropped = await drop_removed(written.store, "default", client)
    assert sorted(dropped) == ["nearline_test_gone", "nearline_test_interrupted"]
    names = await client.list_collections()
    left = {"nearline_test_other_store", "nearline_test_other_collection", "nearline_test_unknown"}
    assert {*left, written.name} <= set(names) and not set(dropped) & set(names)
    assert await states.read("nearline_test_gone") is None
    for name in left:
        await client.drop(name)
        await states.remove(name)


async def test_unstorable_documents_are_rejected(tmp_path: Path, milvus: MilvusClient) -> None:
    store = Store(tmp_path)
    one = Document(id="a\x01b", vectors=np.ones((1, 8), np.float32), text="x")
    snapshot_id = write_snapshot(tmp_path, [one])
    with pytest.raises(InvalidRequest, match=r"U\+0001.*use another id"):
        await export(store, "default", snapshot_id, milvus)
    state = await CollectionStates(milvus).read(collection_name("default", snapshot_id))
    assert state is not None and not state.whole
    many = [Document(id=f"d{n}", vectors=np.ones((1, 8), np.float32)) for n in range(64)]
    rough = write_snapshot(tmp_path, many, factory="SQ8")
    with pytest.raises(Unsupported, match=r"index SQ8.*only approximately.*HNSW32,Flat"):
        await export(store, "default", rough, milvus)
    with pytest.raises(InvalidRequest, match="IVF"):
        await export(store, "default", snapshot_id, milvus, index="IVF")
    await drop_all(store, milvus)


async def test_an_export_continues_after_an_outage(
    own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    documents = [random_document(rng, f"d{number:03d}") for number in range(60)]
    snapshot_id = write_snapshot(tmp_path, documents, fields=FIELDS)
    monkeypatch.setattr("index_builder.indexes.milvus_writer._BATCH_ROWS", 20)
    # The first reads after a restart wait until the server has loaded the collections again.
    client = MilvusClient(own_server.uri, timeout_s=60)
    started: list[asyncio.Future[None]] = []

    class Ended(NoProgress):
        def advance(self, units: int) -> None:
            if not started:
                own_server.kill()
                started.append(asyncio.ensure_future(asyncio.to_thread(own_server.start)))

    store = Store(tmp_path)
    done = await export(store, "default", snapshot_id, client, index="FLAT", progress=Ended())
    await started[0]
    assert (done.documents, done.done) == (60, True)
    await drop_all(store, client)
    await client.close()


def test_stores_of_two_machines_have_two_names(tmp_path: Path) -> None:
    assert store_identity(Store(tmp_path)) == f"file://{os.uname().nodename}{tmp_path}"
