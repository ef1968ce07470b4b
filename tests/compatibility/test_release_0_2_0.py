"""This version reads the files of release 0.2.0: tests/fixtures/release_0_2_0/README.md."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tomllib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from embedding.settings import EmbeddingSettings
from generation.memory.sessions import SessionStore
from generation.settings import GenerationSettings
from index_builder.ingest.settings import IngestSettings, WorkerSettings
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.compaction import compact, compaction_options
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.pipeline.settings import IndexBuilderSettings
from index_builder.releases.probes import probe_of
from nearline import contract as c
from nearline.access.caller_file import CallerFile
from nearline.clients import RetrievalClient
from nearline.errors import Unauthenticated
from nearline.filters import Range
from nearline.settings import Settings
from nearline.store.snapshot import Store
from nearline.store.traffic import read_traffic
from nearline_cli.local.processes import RETRIEVAL_SERVICES, service_process
from retrieval.changelog.registry import ChangeLogs
from retrieval.redis_client.connection import Redis, connect
from retrieval.settings import RouterSettings, ShardSettings
from tests.index_builder.ingest.submissions import job_store_of, take_all, worker_of
from tests.redis_server import needs_redis, valkey
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

WRITTEN = Path(__file__).parents[1] / "fixtures/release_0_2_0"
ANSWERS: dict[str, Any] = json.loads((WRITTEN / "answers.json").read_text("utf-8"))
ENVIRON = dict(
    line.split("=", 1) for line in (WRITTEN / "environment").read_text("utf-8").splitlines()
)
SETTINGS: Sequence[type[Settings]] = (
    EmbeddingSettings,
    GenerationSettings,
    IndexBuilderSettings,
    IngestSettings,
    RouterSettings,
    ShardSettings,
    UpkeepSettings,
    WorkerSettings,
)
module_loop = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Upgraded:
    """The data of the release, served by this version. store: A copy of its store."""

    store: Path
    redis_url: str
    redis: Redis
    client: RetrievalClient


def vector(number: int) -> NDArray[np.float32]:
    one = np.zeros(12, np.float32)
    one[number] = 1
    return one


@pytest.fixture(name="store", scope="module")
def give_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = shutil.copytree(WRITTEN / "store", tmp_path_factory.mktemp("0.2.0") / "store")
    return folder


@pytest_asyncio.fixture(name="upgraded", scope="module", loop_scope="module")
async def give_upgraded(store: Path) -> AsyncIterator[Upgraded]:
    """Serves the data with the settings of the release; the log has been followed to its end."""
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(valkey())
        redis = await stack.enter_async_context(connect(url, timeout_s=10.0))
        dumped = json.loads((WRITTEN / "redis.json").read_text("utf-8"))
        for key, (ttl_ms, value) in dumped.items():
            await redis.restore(key.encode("latin-1"), ttl_ms, base64.b64decode(value))
        words = ["--store", str(store), "--redis", url]
        words += ["--policies", str(WRITTEN / "policies.toml")]
        environ = {**ENVIRON, "NEARLINE_CONFIG": str(WRITTEN / "nearline.toml")}
        router = await stack.enter_async_context(
            service_process("retrieval", words, ready_services=RETRIEVAL_SERVICES, environ=environ)
        )
        client = await stack.enter_async_context(RetrievalClient(router.address))
        async with asyncio.timeout(30):
            while [item.id for item in (await client.list_items()).items] != ANSWERS["items"]:
                await asyncio.sleep(0.05)
        yield Upgraded(store, url, redis, client)


async def hits(client: RetrievalClient, query: c.Query, **options: Any) -> list[list[object]]:
    reply = await client.search(query, c.SearchOptions(k=5, **options))
    return [[hit.id, round(hit.score, 4)] for hit in reply.hits]


async def listed(client: RetrievalClient, **audience: Any) -> list[str]:
    reply = await client.recommend(c.Audience(**audience), c.RecommendOptions(n=5))
    return [one.hit.id for one in reply.recommendations]


@pytest.mark.parametrize("settings", SETTINGS)
def test_each_setting_is_still_known_or_retired(settings: type[Settings]) -> None:
    read = settings.load(environ=ENVIRON, file=WRITTEN / "nearline.toml")
    written = tomllib.loads((WRITTEN / "nearline.toml").read_text("utf-8"))[settings.section]
    assert len(written) > 5
    kept = {name: value for name, value in written.items() if name not in settings.retired}
    assert {name: getattr(read, name) for name in kept} == kept


@needs_redis
@pytest.mark.service
@module_loop
async def test_searches_lists_and_users_are_what_they_were(upgraded: Upgraded) -> None:
    client, recent = upgraded.client, Range("year", gte=2010)
    query = c.Query(vector=vector(4))
    words = c.Query(text="word4 word12")
    assert {
        "dense": await hits(client, query),
        "lexical": await hits(client, words, mode=c.SearchMode.LEXICAL),
        "filtered": await hits(client, query, filter=recent),
        "grouped": await hits(client, query, grouping=c.Grouping("brand")),
        "items": [one.id for one in (await client.list_items()).items],
        "count": (await client.count_items(recent)).count,
        "user": await listed(client, user_id="u000"),
        "rail": await listed(client, surface="rail"),
        "like": await listed(client, item_ids=("i04",), surface="item_page"),
        "recorded": [one.item_id for one in (await client.get_user("ann")).interactions],
    } == ANSWERS


@needs_redis
@pytest.mark.service
@module_loop
async def test_items_of_the_snapshot_and_of_both_halves_of_the_log(upgraded: Upgraded) -> None:
    found = await upgraded.client.get_items(["i00", "i02", "i03", "i12", "i01"])
    assert [one.id for one in found.ignored_ids] == ["i01"]
    first, patched, replaced, new = found.items
    assert (first.title, first.text) == ("Kettle 0", "A quiet kettle with the word0.")
    assert first.attributes is not None and first.attributes["tags"] == ["all", "tag 0"]
    for item, name, value in (
        (patched, "in_stock", False),
        (replaced, "brand", "new"),
        (new, "price", 6.0),
    ):
        assert item.attributes is not None and item.attributes[name] == value
    [user] = {one.user_id for one in (await upgraded.client.get_user("ann")).interactions}
    assert user == "ann"


@needs_redis
@pytest.mark.service
@module_loop
async def test_the_queue_and_the_conversations_go_on(upgraded: Upgraded) -> None:
    job = await job_store_of(upgraded.redis).job("waiting")
    assert (job.tenant, job.callback_id, job.sources) == ("shop", "call", 2)
    item, file = (unit.source for unit in await take_all(worker_of(upgraded.redis)))
    assert isinstance(item, c.Item) and isinstance(file, c.SourceFile)
    assert (item.id, item.title, file.name) == ("i14", "Kettle 14", "notes.md")
    assert item.vector is not None and np.array_equal(item.vector, vector(2))
    session = await SessionStore(upgraded.redis).load("default", "shop", "talk")
    assert [turn.answer for turn in session.turns] == ["3 minutes [1]."]


@needs_redis
@pytest.mark.service
@module_loop
async def test_changes_of_both_versions_are_compacted_together(upgraded: Upgraded) -> None:
    added = c.Item(id="i20", text="word20", vector=vector(7), attributes={"year": 2020})
    reply = await upgraded.client.upsert_items([added])
    assert reply.results[0].outcome is c.WriteOutcome.APPLIED
    options = compaction_options(BuildOptions(store=str(upgraded.store)))
    logs = ChangeLogs(Store(upgraded.store), upgraded.redis_url, who="test")
    built = await compact(options, logs.log("default"), None)
    await logs.close()
    wanted = [*ANSWERS["items"], "i20"]
    async with asyncio.timeout(30):
        while (page := await upgraded.client.list_items()).info.snapshot_id != built.snapshot_id:
            await asyncio.sleep(0.05)
    assert (page.info.epoch, [item.id for item in page.items]) == (2, wanted)
    # The models were not trained again; new items follow.
    assert (await listed(upgraded.client, user_id="u000"))[:3] == ANSWERS["user"]


async def test_a_collection_of_texts_is_searched_in_every_mode(store: Path) -> None:
    async with opened(OBJECT, store, WordEmbedder(16)) as service:
        for mode in c.SearchMode:
            options = c.SearchOptions(k=1, mode=mode)
            query = c.Query(text="a quiet kettle with the word7.")
            reply = await service.search(query, options, collection="texts")
            assert [hit.id for hit in reply.hits] == ["i07"], mode


def test_recorded_requests_can_be_replayed(store: Path) -> None:
    probes = [probe_of(one) for one in read_traffic(Store(store), "default", 100)]
    assert {probe.kind for probe in probes} == {"vector", "text", "list"}


def test_callers_are_known() -> None:
    callers = CallerFile.load(WRITTEN / "callers.toml")
    caller = callers.identify("secret of the shop")
    assert (caller.tenant, caller.roles) == ("shop", ("staff",))
    with pytest.raises(Unauthenticated):
        callers.identify("another")
