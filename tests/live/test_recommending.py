"""Lists from real processes: what a user does shows at once, what is deleted is gone at once, and
a Redis that goes away takes no list with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import redis.asyncio

from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.contract import Audience, RecommendOptions
from nearline.errors import NotReady
from nearline.store.snapshot import Store
from nearline_cli.app import app
from retrieval.changelog.registry import ChangeLogs
from retrieval.protocols.snapshot import read_current_snapshots
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.index_builder.behaviour.trained_snapshots import history_ids, read_trained
from tests.live.world import World, world
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
REDIS_AWAY_S = 10.0
TITLED = RecommendOptions(n=3, payload=frozenset({c.PayloadField.TITLE}))


async def build(store: Path, redis_url: str = "") -> str:
    """Builds from walks around a circle of items: after i03 comes i04."""
    items = [
        c.Item(id=one, title=f"title of {one}", vector=np.eye(ITEMS, dtype=np.float32)[number])
        for number, one in enumerate(documents())
    ]
    options = BuildOptions(
        store=str(store), shards=2, lexical=False, title_only=True,
        training=TrainingOptions(interactions=walks()),
    )  # fmt: skip
    if not redis_url:
        return (await build_snapshot(items, options)).snapshot_id
    logs = ChangeLogs(Store(store), redis_url, who="test")
    try:
        return (await build_snapshot(items, options, log=logs.log("default"))).snapshot_id
    finally:
        await logs.close()


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[World]:
    await build(folder / "store")
    async with world(folder, shards=2, replicas=1) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared")
async def give_shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Yields services of tests that leave the snapshot and the users of the others alone."""
    async with served(tmp_path_factory.mktemp("shared")) as running:
        yield running


async def recommended(client: RetrievalClient, audience: Audience) -> c.RecommendReply:
    """Asks until the router has read what somebody did; it does not wait for a busy Redis."""
    async with asyncio.timeout(30):
        while True:
            reply = await client.recommend(audience, TITLED)
            if reply.info.served_by.rung != "no_user_state":
                return reply
            await asyncio.sleep(0.05)


def ids(reply: c.RecommendReply) -> list[str]:
    return [one.hit.id for one in reply.recommendations]


async def test_what_a_session_does_shows_in_its_very_next_list(shared: World) -> None:
    client, visitor = shared.client, Audience(session_id="s1")
    nobody = await recommended(client, visitor)
    assert nobody.info.served_by.rung == "popular"
    for number in (2, 7, 3):
        done = c.Interaction(item_id=f"i{number:02}", session_id="s1")
        assert await client.record_interactions([done]) == c.RecordReply(1)
        reply = await recommended(client, visitor)
        assert ids(reply)[0] == f"i{(number + 1) % ITEMS:02}"
        assert reply.recommendations[0].hit.title == f"title of {ids(reply)[0]}"
        assert done.item_id not in ids(reply)


async def test_an_event_counts_once_and_a_user_is_known_from_the_snapshot_too(
    shared: World,
) -> None:
    client = shared.client
    done = c.Interaction(item_id="i05", user_id="u001", kind="purchase", event_id="e1")
    assert await client.record_interactions([done]) == c.RecordReply(1)
    assert await client.record_interactions([done]) == c.RecordReply(0, 1)
    kept = await client.get_user("u001")
    assert [(one.item_id, one.kind, one.event_id) for one in kept.interactions] == [
        ("i05", "purchase", "e1")
    ]
    # User 1 went from i05 to i01.
    assert [one.item_id for one in kept.learned[:2]] == ["i01", "i00"]
    assert len(kept.learned) == 9


async def test_a_deleted_user_is_nobody_afterwards(shared: World) -> None:
    client, ann = shared.client, Audience(user_id="u002", session_id="hers")
    for item in ("i05", "i06"):
        done = c.Interaction(item_id=item, user_id="u002", session_id="hers", event_id=item)
        await client.record_interactions([done])
    assert (await recommended(client, ann)).info.served_by == c.ServedBy()
    before = datetime.now(UTC)
    receipt = await client.delete_user("u002")
    assert (receipt.interactions, receipt.log_entries, receipt.sessions) == (2, 2, 1)
    assert before < receipt.deleted < datetime.now(UTC)
    # The snapshot learned from them, and says so; what it has of them is not used any more.
    assert [one.in_force for one in receipt.snapshots] == [True]
    assert (await recommended(client, ann)).info.served_by.rung == "popular"
    kept = await client.get_user("u002")
    assert not kept.interactions and not kept.learned and kept.deleted == receipt.deleted
    async with redis.asyncio.Redis.from_url(shared.redis_url) as state:
        async for key in state.scan_iter():
            assert b"u002" not in key and b"hers" not in key
            assert b"u002" not in (await state.dump(key) or b"")
    # Who comes back begins again.
    await client.record_interactions([c.Interaction(item_id="i03", user_id="u002")])
    assert ids(await recommended(client, Audience(user_id="u002")))[0] == "i04"


async def test_a_swap_under_load_keeps_what_is_asked_for_ready(shared: World) -> None:
    client = shared.client
    pages = [Audience(item_ids=(one,), surface="item_page") for one in documents()]
    shown: list[c.ReplyInfo] = []
    ended = asyncio.Event()

    async def visitor(first: int) -> None:
        for number in itertools.count(first):
            if ended.is_set():
                return
            reply = await client.recommend(pages[number % len(pages)], TITLED)
            assert len(reply.recommendations) == 3
            shown.append(reply.info)

    async def until(snapshot_id: str, many: int) -> None:
        async with asyncio.timeout(60):
            while sum(one.snapshot_id == snapshot_id for one in shown[-many:]) < many:
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for first in range(4):
            group.create_task(visitor(first))
        try:
            (old,) = read_current_snapshots(Store(shared.store), ["default"])
            await until(old.snapshot_id, 200)
            before = shown[-100:]
            fresh = await build(shared.store, shared.redis_url)
            await until(fresh, 100)
        finally:
            ended.set()
    after = [one for one in shown if one.snapshot_id == fresh][:100]
    assert {one.snapshot_id for one in shown} == {old.snapshot_id, fresh}
    assert _hits(before) > 0.9 and _hits(after) >= 0.8 * _hits(before)


async def test_a_deleted_item_leaves_lists_that_were_made_before(shared: World) -> None:
    # The last of those that share services: others want this item.
    client, about = shared.client, Audience(item_ids=("i03",), surface="item_page")
    first = await client.recommend(about, TITLED)
    again = await client.recommend(about, TITLED)
    assert again.info.served_by == c.ServedBy(source=c.Source.CACHE, reason="near")
    assert ids(again) == ids(first) and ids(first)[0] == "i04"
    reply = await client.delete_items(["i04"])
    # The router follows the log on its own; what a caller wrote it may ask for.
    options = RecommendOptions(n=3, min_watermark=reply.watermark)
    assert "i04" not in ids(await client.recommend(about, options))
    async with asyncio.timeout(10):
        while "i04" in ids(await client.recommend(about, TITLED)):
            await asyncio.sleep(0.02)
    assert len(ids(await client.recommend(about, TITLED))) == 3


@pytest.mark.long
async def test_without_redis_lists_go_on_and_say_so_and_come_back_by_themselves(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as running:
        client, ann = running.client, Audience(user_id="u003")
        acknowledged = []
        for number in range(12):
            done = c.Interaction(item_id=f"i{number:02}", user_id="u003", event_id=f"e{number}")
            await client.record_interactions([done])
            acknowledged.append(done.event_id)
        redis_process = running.redis.running
        assert redis_process is not None
        redis_process.process.send_signal(signal.SIGKILL)
        await redis_process.wait()
        answered, clock = 0, asyncio.get_running_loop().time
        back_at = clock() + REDIS_AWAY_S
        while clock() < back_at:
            reply = await client.recommend(ann, TITLED)
            assert len(reply.recommendations) == 3
            assert reply.info.served_by.rung == "no_user_state"
            assert len((await client.recommend(Audience(), TITLED)).recommendations) == 3
            answered += 2
            if answered % 100 == 0:
                with pytest.raises(NotReady):
                    await client.record_interactions([done])
        assert answered >= 200
        await running.redis.start()
        await recommended(client, ann)
        kept = await running.patiently(lambda: client.get_user("u003"))
        assert {one.event_id for one in kept.interactions} == set(acknowledged)


def _hits(shown: Sequence[c.ReplyInfo]) -> float:
    cached = sum(one.served_by.source is c.Source.CACHE for one in shown)
    return cached / len(shown)


async def test_the_next_build_learns_what_was_recorded_and_nothing_of_who_was_deleted(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as running:
        client, store = running.client, Store(running.store)
        for user in ("new", "gone"):
            for item in ("i02", "i03"):
                await client.record_interactions([c.Interaction(item_id=item, user_id=user)])
        for user in ("gone", "u000"):
            await client.delete_user(user)
        events = tmp_path / "events.csv"
        rows = [f"u{number:03},i{number % ITEMS:02},{number}" for number in range(40)]
        events.write_text("\n".join(["user,item,time", *rows]), "utf-8")
        corpus = tmp_path / "corpus.jsonl"
        items = [{"id": one, "text": one, "vector": [1.0] * ITEMS} for one in documents()]
        corpus.write_text("".join(json.dumps(one) + "\n" for one in items), "utf-8")
        words = ("build", "--corpus", str(corpus), "--vector-column", "vector", "--interactions")
        where = ("--store", str(running.store), "--redis", running.redis_url, "--json")
        # Its vectors are others than before.
        forced = ("--force-promote", "the test wants it")
        await asyncio.to_thread(app, (*words, str(events), *where, *forced), standalone_mode=False)
        trained = read_trained(store)
        assert history_ids(trained, "new") == ["i03", "i02"]
        # What the file has of user 0 was done before the user was deleted.
        assert trained.had_by("gone") is None and trained.had_by("u000") is None
        assert trained.had_by("u001") is not None
        # A compaction carries on what was learned, but not of who was deleted in the meantime.
        await client.delete_user("u001")
        new = c.Item(id="i99", text="x", vector=np.ones(ITEMS, np.float32))
        (result,) = (await client.upsert_items([new])).results
        assert result.outcome is c.WriteOutcome.APPLIED
        await asyncio.to_thread(app, ("compact", *where), standalone_mode=False)
        trained = read_trained(store)
        assert "i99" in trained.tables.ids
        assert trained.had_by("u001") is None and trained.had_by("u002") is not None
