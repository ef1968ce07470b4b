"""Items are deleted by a filter, policies set, second names moved, while all is served."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from nearline import contract as c
from nearline.channel import ServiceChannel
from nearline.clients import RetrievalClient
from nearline.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    SnapshotGone,
)
from nearline.v1 import release_pb2, retrieval_pb2, retrieval_pb2_grpc
from tests.live.two_routers import DIM, Running, give_running as give_running
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
_DENSE = c.SearchOptions(k=5, mode=c.SearchMode.DENSE)


async def test_items_that_match_are_deleted_and_no_others(running: Running) -> None:
    await running.admin.create_collection("filtered", dim=DIM, attributes={"n": "int"})
    await running.fill("filtered", "f", rows=1_000)
    written = await running.fill("filtered", "k", rows=10)
    client = running.client
    # Matches of more than one page, in a state that has them all.
    await client.count_items("n >= 0", collection="filtered", min_watermark=written.watermark)
    done = await client.delete_matching("n >= 5", collection="filtered")
    assert done.deleted == 995 + 5
    left = await client.count_items(collection="filtered", min_watermark=done.watermark)
    assert left.count == 10
    again = await client.delete_matching("n >= 5", collection="filtered")
    assert again.deleted == 0
    await running.admin.drop_collection("filtered")


async def test_a_deletion_without_a_filter_is_refused(running: Running) -> None:
    async with ServiceChannel(running.addresses[0]) as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
        request = retrieval_pb2.DeleteItemsByFilterRequest(collection="any")
        with pytest.raises(InvalidRequest, match="filter is not set"):
            await channel.send(stub.DeleteItemsByFilter, request)
        request = retrieval_pb2.DeleteItemsByFilterRequest(limit=10_001)
        request.filter.exists.field = "n"
        with pytest.raises(InvalidRequest, match=r"limit is 10001; 0..10,000"):
            await channel.send(stub.DeleteItemsByFilter, request)


async def test_policies_set_by_api_rule_the_next_list(running: Running) -> None:
    await running.admin.create_collection("ruled", dim=DIM)
    written = await running.fill("ruled", "r")
    pinned = 'version = 1\n[surfaces.home]\npinned = ["r7"]\n'
    options = c.RecommendOptions(n=3, min_watermark=written.watermark)

    async def first() -> str:
        audience = c.Audience(surface="home")
        reply = await running.client.recommend(audience, options, collection="ruled")
        return next((one.hit.id for one in reply.recommendations), "")

    assert await first() != "r7"
    made = await running.admin.set_policies(pinned, "ruled", why="sale")
    assert await first() == "r7"
    assert await running.admin.policies("ruled") == made
    with pytest.raises(InvalidRequest, match="pined is unknown"):
        await running.admin.set_policies(pinned.replace("pinned", "pined"), "ruled")
    await running.admin.set_policies("", "ruled", expected_number=1)
    assert await first() != "r7"
    await running.admin.drop_collection("ruled")
    assert len(running.files("ruled")) == 1


async def test_policies_on_trial_answer_their_share_until_they_are_promoted(
    running: Running,
) -> None:
    admin = running.admin
    await admin.create_collection("trial", dim=DIM)
    written = await running.fill("trial", "t")
    options = c.RecommendOptions(n=3, min_watermark=written.watermark)

    async def ask(client: RetrievalClient, user: str) -> c.RecommendReply:
        audience = c.Audience(user_id=user, surface="home")
        return await client.recommend(audience, options, collection="trial")

    async def served(client: RetrievalClient) -> bool:
        with contextlib.suppress(NotFound):
            return bool((await ask(client, "u")).recommendations)
        return False

    def first(reply: c.RecommendReply) -> str:
        return reply.recommendations[0].hit.id

    async def start(pinned: str) -> None:
        toml = f'version = 1\n[surfaces.home]\npinned = ["{pinned}"]\n'
        limits = release_pb2.RolloutLimits(false_alarm=1e-6, latency_ratio=100)
        rollout = release_pb2.Rollout(policies=toml, limits=limits)
        await admin.split("", 0.5, "trial", rollout=rollout, why="what is seen first")
        async with asyncio.timeout(20):
            for client in (running.client, running.other):
                while (await ask(client, "u")).info.arm is None:
                    await asyncio.sleep(0.05)

    async with asyncio.timeout(20):
        for client in (running.client, running.other):
            while not await served(client):
                await asyncio.sleep(0.05)
    with pytest.raises(InvalidRequest, match="pined is unknown"):
        bad = release_pb2.Rollout(policies="version = 1\n[surfaces.home]\npined = []\n")
        await admin.split("", 0.5, "trial", rollout=bad)
    await start("t7")
    with pytest.raises(Conflict, match="other policies are on trial"):
        await admin.set_policies("", "trial")
    for number in range(80):
        reply = await ask(running.client, f"user-{number}")
        again = await ask(running.other, f"user-{number}")
        is_canary = reply.info.arm is c.Arm.CANARY
        assert again.info.arm is reply.info.arm
        assert (first(reply) == "t7") == (first(again) == "t7") == is_canary
        if is_canary:
            event = c.Interaction(
                item_id="t7", user_id=f"user-{number}", list_id=reply.info.list_id, kind="view"
            )
            await running.client.record_interactions([event], collection="trial")
    # Searches have no policies, and no arm.
    query = c.Query(vector=np.ones(DIM, np.float32))
    assert (await running.client.search(query, collection="trial")).info.arm is None
    status = await admin.rollout_status("trial")
    assert [one.verdict for one in status.verdicts] == ["better", "undecided"]
    assert status.arms[0].snapshot_id == status.arms[1].snapshot_id == status.in_force.canary
    await admin.promote(status.in_force.canary, "trial", who="me", why="more clicks")
    made = await admin.policies("trial")
    assert (made.number, made.who, made.why) == (1, "me", "more clicks")
    async with asyncio.timeout(20):
        for client in (running.client, running.other):
            while (reply := await ask(client, "w")).info.arm or first(reply) != "t7":
                await asyncio.sleep(0.05)
    # Aborted ones leave no trace.
    await start("t8")
    users = [f"new-{number}" for number in range(20)]
    assert {first(await ask(running.client, user)) for user in users} == {"t7", "t8"}
    await admin.split("", collection="trial")
    async with asyncio.timeout(20):
        while (await ask(running.client, "u")).info.arm is not None:
            await asyncio.sleep(0.05)
    assert {first(await ask(running.client, user)) for user in users} == {"t7"}
    assert (await admin.policies("trial")).number == 1
    await admin.drop_collection("trial")


async def test_requests_for_a_second_name_go_to_the_collection_that_it_points_to(
    running: Running,
) -> None:
    admin, client, other = running.admin, running.client, running.other
    for name in ("year1", "year2"):
        await admin.create_collection(name, dim=DIM)
        await running.fill(name, name[-1])
    query = c.Query(vector=np.ones(DIM, np.float32))

    async def prefixes(asked: RetrievalClient) -> set[str]:
        found = await asked.search(query, _DENSE, collection="now")
        return {hit.id[0] for hit in found.hits}

    assert await admin.set_collection_name("now", "year1", why="w") == ["now"]
    assert await prefixes(client) == {"1"}
    assert (await admin.collection("now")).name == "year1"
    assert (await admin.collection("year1")).names == ["now"]
    added = [c.Item(id="1x", vector=query.vector)]
    written = await client.upsert_batches(batches(added), collection="now")
    found = await client.get_items(["1x"], collection="year1", min_watermark=written.watermark)
    assert [item.id for item in found.items] == ["1x"]
    await admin.set_collection_name("now", "year2")
    assert await prefixes(client) == {"2"}
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(NotFound):
                if await prefixes(other) == {"2"}:
                    break
            await asyncio.sleep(0.02)
    with pytest.raises(InvalidRequest, match="'now' is a second name of 'year2'"):
        await admin.drop_collection("now")
    with pytest.raises(AlreadyExists, match="'now' is a second name of 'year2'"):
        await admin.create_collection("now", dim=DIM)
    with pytest.raises(InvalidRequest, match="'year1' is a collection of its own"):
        await admin.set_collection_name("year1", "year2")
    with pytest.raises(NotFound):
        await admin.set_collection_name("then", "year3")
    # A second name goes with its collection.
    await admin.drop_collection("year2")
    with pytest.raises(NotFound):
        await prefixes(client)
    await admin.drop_collection("year1")


async def batches(*items: Sequence[c.Item]) -> AsyncIterator[Sequence[c.Item]]:
    for one in items:
        yield one


async def test_pages_of_a_search_are_the_search_in_parts(running: Running) -> None:
    await running.admin.create_collection("paged", dim=DIM, attributes={"n": "int"})
    written = await running.fill("paged", "p", rows=95)
    query = c.Query(vector=np.ones(DIM, np.float32))
    whole = c.SearchOptions(k=200, mode=c.SearchMode.DENSE, min_watermark=written.watermark)
    expected = await running.client.search(query, whole, collection="paged")
    assert (len(expected.hits), expected.next_page_token) == (95, "")
    options = dataclasses.replace(whole, k=20)
    found: list[str] = []
    token = ""
    for size in (20, 20, 20, 20, 15):
        page = await running.client.search(query, options, page_token=token, collection="paged")
        assert len(page.hits) == size
        found += [hit.id for hit in page.hits]
        token = page.next_page_token
    assert token == ""
    assert found == [hit.id for hit in expected.hits]
    for wrong in ("x", "20261128T074448Z-d96c29/0", "20261128T074448Z-d96c29/99999"):
        with pytest.raises(InvalidRequest) as refused:
            await running.client.search(query, options, page_token=wrong, collection="paged")
        assert refused.value.field == "page_token"
    with pytest.raises(SnapshotGone, match="without naming a snapshot"):
        gone = "20261128T074448Z-d96c29/20"
        await running.client.search(query, options, page_token=gone, collection="paged")
    grouped = dataclasses.replace(options, grouping=c.Grouping("n"))
    reply = await running.client.search(query, grouped, collection="paged")
    assert (len(reply.hits), reply.next_page_token) == (20, "")
    await running.admin.drop_collection("paged")
