"""Personal searches of real processes, what is recorded of them, and what a deletion leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import redis.asyncio

from nearline import contract as c, wire
from nearline.clients import RetrievalClient
from nearline.store.snapshot import Store
from nearline.store.traffic import read_traffic
from tests.index_builder.behaviour.circular_walks import ITEMS
from tests.live.test_recommending import build
from tests.live.world import world
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
# Equally near to all items, so that the taste alone orders them.
QUERY = c.Query(vector=np.ones(ITEMS, np.float32))


async def searched(client: RetrievalClient, **options: object) -> c.SearchReply:
    wanted = c.SearchOptions(k=ITEMS, **options)  # type: ignore[arg-type]
    return await client.search(QUERY, wanted)


def as_bytes(reply: c.SearchReply) -> list[bytes]:
    return [wire.hit_to_bytes(hit) for hit in reply.hits]


async def test_a_search_follows_its_user_and_its_record_names_nobody(tmp_path: Path) -> None:
    await build(tmp_path / "store")
    recorded = ("--record-share", "1", "--record-queries", "texts")
    async with world(tmp_path, shards=2, replicas=1, router=recorded) as running:
        client = running.client
        plain = await searched(client)
        ann = {"user_id": "ann-4711", "session_id": "s-0815", "personal": 0.5}
        assert as_bytes(await searched(client, **ann)) == as_bytes(plain)
        # After i06 comes i07.
        done = c.Interaction(item_id="i06", user_id="ann-4711", session_id="s-0815")
        await client.record_interactions([done])
        shown = await searched(client, **ann)
        assert shown.hits[0].id == "i07" != plain.hits[0].id and not shown.hits[0].reasons
        told = await searched(client, explain=True, unrecorded=True, **ann)
        assert [hit.id for hit in told.hits] == [hit.id for hit in shown.hits]
        assert told.hits[0].reasons[0] == "because:i06"
        assert {hit.id for hit in shown.hits} == {hit.id for hit in plain.hits}
        assert as_bytes(await searched(client, user_id="bob", personal=0.5)) == as_bytes(plain)
        assert as_bytes(await searched(client, user_id="ann-4711")) == as_bytes(plain)
        list_id = shown.info.list_id
        click = c.Interaction(
            item_id="i07", user_id="ann-4711", session_id="s-0815", list_id=list_id, position=0
        )
        await client.record_interactions([click])
        hidden = await searched(client, unrecorded=True, **ann)
        receipt = await client.delete_user("ann-4711")
        assert (receipt.interactions, receipt.log_entries, receipt.recorded_requests) == (2, 2, 0)
        assert as_bytes(await searched(client, **ann)) == as_bytes(plain)
        async with redis.asyncio.Redis.from_url(running.redis_url) as state:
            async for key in state.scan_iter():
                kept = await state.dump(key) or b""
                assert list_id.encode() not in kept and b"ann-4711" not in kept
        # It writes when it ends.
        await running.router.stop()
        requests = read_traffic(Store(tmp_path / "store"), "default", 100)
    by_list = {one.list_id: one for one in requests}
    assert len(by_list) == 6 and hidden.info.list_id not in by_list
    assert list(by_list[list_id].ids) == [hit.id for hit in shown.hits]
    assert by_list[list_id].personal and not by_list[plain.info.list_id].personal
    for one in requests:
        data = one.SerializeToString()
        assert b"ann-4711" not in data and b"s-0815" not in data and b"bob" not in data
