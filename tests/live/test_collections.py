"""Collections are created, filled, asked, dropped and created again while others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from nearline import contract as c
from nearline.access.rights import Right
from nearline.clients import AdminClient, IngestClient, RetrievalClient
from nearline.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    NotReady,
    SnapshotMismatch,
)
from nearline.store.snapshot import Store
from nearline_cli.local.key_store import KeyStore
from nearline_cli.local.processes import (
    ingest_process,
    retrieval_process,
    service_process,
    worker_process,
)
from tests.live.two_routers import DIM, Running, give_running as give_running
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
_DENSE = c.SearchOptions(k=5, mode=c.SearchMode.DENSE)
# What a caller of a collection that comes and goes may see.
_GONE = (NotFound, NotReady, SnapshotMismatch)


async def test_an_empty_store_says_what_to_do(running: Running) -> None:
    with pytest.raises(NotFound, match="nearline collections create shop"):
        await running.client.search(c.Query(text="x"), collection="shop")
    assert [one async for one in running.admin.collections()] == []


async def test_an_empty_collection_is_written_searched_and_filtered_at_once(
    running: Running,
) -> None:
    made = await running.admin.create_collection("shop", dim=DIM, attributes={"n": "int"}, why="w")
    assert (made.name, made.served, made.documents, made.epoch) == ("shop", True, 0, 1)
    lexical = c.SearchOptions(mode=c.SearchMode.LEXICAL)
    nothing = await running.client.search(c.Query(text="lamp"), lexical, collection="shop")
    assert len(nothing.hits) == 0
    written = await running.fill("shop", "a")
    options = c.SearchOptions(
        k=5, mode=c.SearchMode.LEXICAL, min_watermark=written.watermark, filter="n < 3"
    )
    found = await running.client.search(c.Query(text="lamps"), options, collection="shop")
    assert sorted(hit.id for hit in found.hits) == ["a0", "a1", "a2"]
    listed = [one.name async for one in running.admin.collections()]
    assert listed == ["shop"]
    described = await running.admin.collection("shop")
    assert (described.dim, described.metric, described.language) == (DIM, "cosine", "english")
    await running.admin.drop_collection("shop")


async def test_attributes_with_a_weight_are_searched_by_their_words(running: Running) -> None:
    weights = {"title": 2.0, "genres": 0.5}
    made = await running.admin.create_collection("films", dim=DIM, search_weights=weights)
    assert dict(made.search_weights) == weights
    await running.admin.create_collection("plain", dim=DIM)
    item = c.Item(
        id="f", text="film", vector=np.ones(DIM, np.float32), attributes={"genres": ["noir"]}
    )
    found = {}
    for name in ("films", "plain"):
        written = await running.client.upsert_items([item], collection=name)
        options = c.SearchOptions(mode=c.SearchMode.LEXICAL, min_watermark=written.watermark)
        reply = await running.client.search(c.Query(text="noir"), options, collection=name)
        found[name] = [hit.id for hit in reply.hits]
    assert found == {"films": ["f"], "plain": []}
    described = {one.name: dict(one.search_weights) async for one in running.admin.collections()}
    assert described == {"films": weights, "plain": {}}
    for name in found:
        await running.admin.drop_collection(name)


async def test_attributes_have_a_language_of_their_own(running: Running) -> None:
    made = await running.admin.create_collection(
        "bands", dim=DIM, search_weights={"band": 1.0}, search_languages={"band": "none"}
    )
    assert dict(made.search_languages) == {"band": "none"}
    items = [
        c.Item(id=band, text="runs", vector=np.ones(DIM, np.float32), attributes={"band": band})
        for band in ("The The", "Running")
    ]
    written = await running.client.upsert_items(items, collection="bands")
    options = c.SearchOptions(mode=c.SearchMode.LEXICAL, min_watermark=written.watermark)
    found = {}
    for text in ("the", "Running", "run"):
        reply = await running.client.search(c.Query(text=text), options, collection="bands")
        found[text] = [hit.id for hit in reply.hits]
    assert found == {
        "the": ["The The"],
        "Running": ["Running", "The The"],
        "run": ["Running", "The The"],
    }
    described = await running.admin.collection("bands")
    assert dict(described.search_languages) == {"band": "none"}
    await running.admin.drop_collection("bands")


async def test_synonyms_of_a_new_collection_apply_to_its_live_items(running: Running) -> None:
    rules = ["# of a shop", "tv, television", "nyc => new york city"]
    made = await running.admin.create_collection("synonyms", dim=DIM, synonyms=rules)
    assert made.synonym_rules == 2
    items = [
        c.Item(id=key, text=text, vector=np.ones(DIM, np.float32))
        for key, text in (("a", "a television"), ("b", "the city of new york"), ("c", "a new tv"))
    ]
    written = await running.client.upsert_items(items, collection="synonyms")
    options = c.SearchOptions(mode=c.SearchMode.LEXICAL, min_watermark=written.watermark)
    # The other router reads of the collection within a second.
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(NotFound, NotReady):
                await running.other.search(c.Query(text="tv"), options, collection="synonyms")
                break
            await asyncio.sleep(0.05)
    found = {}
    for text in ("tv", "nyc", "new york city"):
        for client in (running.client, running.other):
            reply = await client.search(c.Query(text=text), options, collection="synonyms")
            found[text] = [hit.id for hit in reply.hits]
    # Every word of an empty collection counts the same.
    assert found == {"tv": ["c", "a"], "nyc": ["b"], "new york city": ["b", "c"]}
    described = await running.admin.collection("synonyms")
    assert described.synonym_rules == 2
    await running.admin.drop_collection("synonyms")


async def test_a_name_in_use_is_refused_and_one_that_never_was_cannot_be_dropped(
    running: Running,
) -> None:
    await running.admin.create_collection("used", dim=DIM)
    with pytest.raises(AlreadyExists, match="nearline collections drop used"):
        await running.admin.create_collection("used", dim=DIM)
    await running.admin.drop_collection("used")
    with pytest.raises(NotFound, match="no collection 'nothing'"):
        await running.admin.drop_collection("nothing")
    with pytest.raises(InvalidRequest, match="collection is empty"):
        await running.admin.drop_collection("")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 65_537}, "dim is 65537; 0..65,536"),
        ({}, "no embedding service answers"),
        ({"dim": 8, "metric": "l2"}, "metric is l2; cosine or inner_product"),
        ({"dim": 8, "shards": 65}, r"shards is 65; 1..64 is allowed"),
        ({"dim": 8, "language": "klingon"}, "klingon"),
        ({"dim": 8, "attributes": {"": "int"}}, r"attributes\[0\].name is ''"),
        ({"dim": 8, "attributes": {"n": "float"}}, "kind of attribute 'n' is 'float'"),
        ({"dim": 8, "synonyms": ["a, b", "tv =>"]}, "synonyms, line 2: an entry has no word"),
        ({"dim": 8, "synonyms": ["a1 => b1", "b1 => a1"]}, "synonyms, lines 1, 2: .* cycle"),
        ({"dim": 8, "search_weights": {"title": 101}}, "weight of 'title' is 101; 0.001 to 100"),
        (
            {"dim": 8, "attributes": {"n": "int"}, "search_weights": {"n": 1}},
            "'n' has a search weight, but is declared of kind int; only texts have words",
        ),
        (
            {"dim": 8, "search_languages": {"brand": "none"}},
            "'brand' has a search language, but no search weight",
        ),
        (
            {"dim": 8, "search_weights": {"b": 1}, "search_languages": {"b": "klingon"}},
            "language of 'b' is 'klingon'; use one of none, ",
        ),
        (
            {"dim": 8, "search_languages": {"title": "none"}},
            "title and text have the language of the collection",
        ),
        (
            {"dim": 8, "search_languages": {f"a{n}": "none" for n in range(1_000)}},
            "1000 fields have a search language; at most 32",
        ),
        ({"dim": 8, "search_languages": {"b": 5}}, "search_languages"),
    ],
)
async def test_an_option_out_of_range_is_named(
    running: Running, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        await running.admin.create_collection("bad", **options)
    assert running.files("bad") == []


async def test_what_is_dropped_is_gone_everywhere_and_its_name_is_free(running: Running) -> None:
    await running.admin.create_collection("gone", dim=DIM)
    await running.fill("gone", "g")
    receipt = await running.admin.drop_collection("gone", why="tidy")
    assert (receipt.snapshots, receipt.epoch) == (1, 2)
    assert receipt.redis_keys > 64
    assert running.files("gone") == ["aliases/0000000002.json"]
    assert await running.keys() == []
    for client in (running.client, running.other):
        with pytest.raises(NotFound, match="'gone' is not served here"):
            await client.search(c.Query(text="lamp"), collection="gone")
    made = await running.admin.create_collection("gone", dim=4)
    assert (made.epoch, made.dim) == (3, 4)
    user = await running.client.get_user("ann", collection="gone")
    assert not user.interactions
    await running.admin.drop_collection("gone")


async def test_documents_queued_for_what_is_dropped_are_not_written_into_its_successor(
    running: Running,
) -> None:
    await running.admin.create_collection("queued", dim=DIM)
    vector = np.ones(DIM, np.float32)
    item = c.Item(id="late", text="late", vector=vector)
    async with IngestClient(running.addresses[0]) as ingest:
        job = await ingest.submit([item], collection="queued")
        receipt = await running.admin.drop_collection("queued")
        assert receipt.cancelled_jobs == 1
        await running.admin.create_collection("queued", dim=DIM)
        async with worker_process(running.redis_url, running.addresses[0]):
            ended = await ingest.wait(job.job_id, timeout_s=30)
        assert ended.state is c.JobState.CANCELLED
    found = await running.client.get_items(["late"], collection="queued")
    assert not found.items
    await running.admin.drop_collection("queued")


async def test_of_two_that_create_a_collection_one_does(running: Running) -> None:
    async with AdminClient(running.addresses[1]) as other:
        made = await asyncio.gather(
            *(admin.create_collection("twice", dim=4) for admin in (running.admin, other) * 3),
            return_exceptions=True,
        )
    assert sorted(type(one).__name__ for one in made) == ["AlreadyExists"] * 5 + ["Collection"]
    assert len(Store(running.store).snapshot_ids("twice")) == 1
    await running.admin.drop_collection("twice")


async def test_two_that_drop_a_collection_wait_or_are_told(running: Running) -> None:
    await running.admin.create_collection("twice", dim=4)
    async with AdminClient(running.addresses[1]) as other:
        done = await asyncio.gather(
            *(admin.drop_collection("twice") for admin in (running.admin, running.admin, other)),
            return_exceptions=True,
        )
    kinds = sorted(type(one).__name__ for one in done)
    assert kinds.count("DropCollectionResponse") >= 1
    assert set(kinds) <= {"DropCollectionResponse", "Conflict", "NotFound"}
    assert len(running.files("twice")) == 1


class Door:
    """How somebody creates and drops the collection "busy"."""

    def __init__(self, running: Running, gateway: str) -> None:
        self._running = running
        self._url = f"http://{gateway}/v1/collections/busy"

    async def python(self, create: bool) -> None:
        admin = self._running.admin
        await (
            admin.create_collection("busy", dim=DIM) if create else admin.drop_collection("busy")
        )

    async def http(self, create: bool) -> None:
        async with httpx2.AsyncClient(timeout=60) as client:
            if create:
                reply = await client.put(self._url, json={"dim": DIM})
            else:
                reply = await client.delete(self._url)
        assert reply.status_code == 200, reply.text

    async def command(self, create: bool) -> None:
        words = ["create", "busy", "--dim", str(DIM)] if create else ["drop", "busy", "--yes"]
        address = self._running.addresses[0]
        command = ("-m", "nearline_cli.main", "collections", *words, "--address", address, "--json")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out
        json.loads(out)


@dataclass
class Load:
    """Callers of a collection that comes and goes, and of one that stays."""

    running: Running
    prefix: str = ""
    gone: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    answered: int = 0
    written: int = 0
    ended: bool = False

    async def ask(self, client: RetrievalClient) -> None:
        while not self.ended:
            gone = frozenset(self.gone)
            with contextlib.suppress(*_GONE):
                query = c.Query(vector=np.ones(DIM, np.float32))
                found = await client.search(query, _DENSE, collection="busy")
                self.answered += 1
                self.wrong += [hit.id for hit in found.hits if hit.id[0] in gone]
            await asyncio.sleep(0)

    async def write(self, client: RetrievalClient) -> None:
        number = 0
        while not self.ended:
            number += 1
            item = c.Item(id=f"{self.prefix}-{number}", vector=np.ones(DIM, np.float32))
            with contextlib.suppress(*_GONE, Conflict):
                reply = await client.upsert_items([item], collection="busy")
                self.written += len(reply.results)
            await asyncio.sleep(0.005)

    async def ask_steady(self, client: RetrievalClient) -> None:
        while not self.ended:
            query = c.Query(vector=np.ones(DIM, np.float32))
            found = await client.search(query, _DENSE, collection="steady")
            self.wrong += [] if len(found.hits) == 5 else ["steady"]
            await asyncio.sleep(0)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "door", ["python", *(pytest.param(one, marks=pytest.mark.long) for one in ("http", "command"))]
)
async def test_create_fill_ask_and_drop_again_and_again_under_load(
    running: Running, door: str
) -> None:
    await running.admin.create_collection("steady", dim=DIM)
    await running.fill("steady", "s")
    words = ("--retrieval", running.addresses[0], "--port", "0")
    async with service_process("gateway", words, ready_services=()) as gateway:
        operate = getattr(Door(running, gateway.address), door)
        load = Load(running)
        calls = [
            asyncio.create_task(call(client))
            for call in (load.ask, load.write, load.ask_steady)
            for client in (running.client, running.other)
        ]
        try:
            for prefix in "abc":
                load.prefix = prefix
                await operate(True)
                written = await running.fill("busy", prefix)
                options = c.SearchOptions(
                    k=100, mode=c.SearchMode.DENSE, min_watermark=written.watermark
                )
                query = c.Query(vector=np.ones(DIM, np.float32))
                found = await running.client.search(query, options, collection="busy")
                ids = {hit.id for hit in found.hits}
                assert {f"{prefix}{row}" for row in range(20)} <= ids
                assert {one[0] for one in ids} == {prefix}
                await operate(False)
                load.gone.add(prefix)
                assert len(running.files("busy")) == 1
        finally:
            load.ended = True
            failed = [one for one in await asyncio.gather(*calls, return_exceptions=True) if one]
    assert failed == []
    assert load.wrong == []
    assert load.answered > 0 and load.written > 0
    assert [key for key in await running.keys() if "busy" in key] == []
    await running.admin.drop_collection("steady")
    assert await running.keys() == []


async def test_a_tenant_that_drops_a_shared_collection_ends_the_jobs_of_all(tmp_path: Path) -> None:
    made = KeyStore(tmp_path / "keys.toml")
    ours, _ = made.create("a", {"shared": Right.ADMIN})
    theirs, _ = made.create("b", {"shared": Right.WRITE})
    service, _ = made.create("*", {"*": Right.SERVICE})
    secured = ("--keys", str(tmp_path / "keys.toml"))
    own = {"NEARLINE_TOKEN": service}
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(valkey())
        queue = await stack.enter_async_context(ingest_process(url, secured))
        words = ("--redis", url, "--ingest", queue.address, "--allow-empty", *secured)
        router = await stack.enter_async_context(
            retrieval_process(tmp_path / "store", words, environ=own)
        )
        admin = await stack.enter_async_context(AdminClient(router.address, token=ours))
        await admin.create_collection("shared", dim=DIM)
        item = c.Item(id="late", text="late", vector=np.ones(DIM, np.float32))
        async with IngestClient(router.address, token=theirs) as ingest:
            job = await ingest.submit([item], collection="shared")
            assert (await admin.drop_collection("shared")).cancelled_jobs == 1
            assert (await ingest.job(job.job_id)).state is c.JobState.CANCELLING
