"""User states in a real Redis are recorded, read, exported and logged."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from redis import Redis
from redis.crc import key_slot

from nearline.contract.recommendations import Interaction, RecordReply
from nearline.errors import InvalidRequest, NotReady
from nearline.times import to_us
from retrieval.redis_client.connection import connect
from retrieval.redis_client.durability import Durability
from retrieval.users.export import export_interactions
from retrieval.users.keys import user_keys
from retrieval.users.recorder import RECENT_EVENTS
from retrieval.users.records import EMPTY_STATE
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis
from tests.retrieval.users.conftest import Open
from tests.retrieval.users.interactions import at, items, seen

pytestmark = [pytest.mark.service, needs_redis]


async def test_the_newest_events_of_a_user_count_once_and_no_others_are_remembered(
    states: UserStates, shared_redis: str
) -> None:
    given = [seen("a", n, event_id=str(n)) for n in range(5 * 1_024)]
    for first in range(0, len(given), 1_024):
        await states.record("c", given[first : first + 1_024])
    with Redis.from_url(shared_redis) as client:
        assert client.strlen(user_keys("c", "u").recent) == 12 * RECENT_EVENTS
    assert await states.record("c", given[-RECENT_EVENTS:][:1_024]) == RecordReply(0, 1_024)
    assert await states.record("c", [given[-RECENT_EVENTS - 1]]) == RecordReply(1, 0)


async def test_a_request_has_many_users(states: UserStates) -> None:
    asked = [seen(f"i{n}", n, f"user {n % 300}") for n in range(1_024)]
    assert await states.record("c", asked) == RecordReply(1_024, 0)
    found = [items(await states.read("c", f"user {n}")) for n in range(300)]
    assert found == [[f"i{n}" for n in range(1_023, -1, -1) if n % 300 == u] for u in range(300)]


async def test_writers_that_race_lose_nothing(opened: Open) -> None:
    writers = [opened() for _ in range(4)]
    replies = await asyncio.gather(
        *(
            writer.record("c", [seen(f"{w}-{n}", n, event_id=str(n)) for n in range(k, k + 5)])
            for w, writer in enumerate(writers)
            for k in (0, 5, 10)
        )
    )
    # All write events 0..14 of one user: each counts once, whoever comes first.
    assert sum(one.recorded for one in replies) == 15
    assert sum(one.duplicates for one in replies) == 45
    found = await writers[0].read("c", "u")
    assert [event.time_us for event in found.events] == [to_us(at(n)) for n in range(14, -1, -1)]
    assert [await writer.read("c", "u") for writer in writers] == [found] * 4
    assert len([one async for one in writers[0].logged("c")]) == 15


async def test_an_event_too_old_for_the_history_counts_once_in_a_race(opened: Open) -> None:
    writers = [opened(ring=1) for _ in range(8)]
    await opened(ring=1).record("c", [seen("new", 9)])
    # The history stays as it is; what was recorded lately does not.
    old = [writer.record("c", [seen("old", 1, event_id="e")]) for writer in writers]
    assert sum(one.recorded for one in await asyncio.gather(*old)) == 1
    assert items(await writers[0].read("c", "u")) == ["new"]
    assert len([one async for one in writers[0].logged("c")]) == 2
    assert await writers[0].count_logged("c") == 2


async def test_a_router_outlives_a_flush_of_redis(opened: Open, shared_redis: str) -> None:
    old, new = opened(), opened()
    await old.record("c", [seen(f"old {n}", n, f"user {n}") for n in range(200)])
    with Redis.from_url(shared_redis) as client:
        client.flushall()
    # Others give the same numbers to other items.
    await new.record("c", [seen(f"new {n}", n, f"user {n}") for n in range(100)])
    await old.record("c", [seen(f"old {n}", n + 1, f"user {n}") for n in range(200)])
    for states in (old, new, opened()):
        assert items(await states.read("c", "user 7")) == ["old 7", "new 7"]
        assert items(await states.read("c", "user 150")) == ["old 150"]


async def test_a_reader_outlives_a_flush_of_redis(opened: Open, shared_redis: str) -> None:
    old, new = opened(), opened()
    await old.record("c", [seen("old", 1)])
    with Redis.from_url(shared_redis) as client:
        client.flushall()
    assert await old.read("c", "u") == EMPTY_STATE
    await new.record("c", [seen("new", 1)])
    assert items(await old.read("c", "u")) == ["new"]


async def test_an_export_is_put_together_beside_the_event_loop(
    states: UserStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def export(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return export_interactions(*arguments)

    monkeypatch.setattr("retrieval.users.states.export_interactions", export)
    await states.export("c", "u")
    assert threads and threading.current_thread() not in threads


async def test_an_export_has_the_history_and_the_rest_of_the_log(
    states: UserStates, shared_redis: str
) -> None:
    full = Interaction(
        item_id="a",
        user_id="u",
        session_id="s",
        kind="cart",
        time=at(1.5),
        weight=0.1,
        list_id="list",
        position=3,
        event_id="e",
    )
    await states.record("c", [full, seen("b", 2.5), seen("x", 1, "u2")])
    record = await states.export("c", "u")
    assert list(record.interactions) == [seen("b", 2.5), full]
    assert record.deleted is None
    with Redis.from_url(shared_redis) as client:
        client.delete(user_keys("c", "u").log)
    await states.record("c", [seen("c", 2)])
    assert list((await states.export("c", "u")).interactions) == [
        seen("c", 2),
        seen("b", 2),
        Interaction(
            item_id="a", user_id="u", kind="cart", time=at(1), weight=float(np.float32(0.1))
        ),
    ]


async def test_the_log_of_a_partition_may_be_long(states: UserStates) -> None:
    for part in range(3):
        await states.record(
            "c", [seen(f"i{n}", part, event_id=f"{part} {n}") for n in range(1_000)]
        )
    assert len([one async for one in states.logged("c")]) == 3_000
    assert await states.count_logged("c") == 3_000
    assert len((await states.export("c", "u")).interactions) == 3_000
    assert (await states.delete("c", "u")).log_entries == 3_000


async def test_old_entries_leave_the_log(opened: Open, shared_redis: str) -> None:
    states = opened(session_ttl_s=60, log_days=1)
    log = user_keys("c", "u").log
    with Redis.from_url(shared_redis) as client:
        with client.pipeline(transaction=False) as pipe:
            for n in range(1_000):
                pipe.xadd(log, {"item": "old", "kind": "view", "time": 1}, f"{n + 1}-0")
            pipe.execute()
        await states.record("c", [seen("a", 1)])
        # Redis drops whole nodes, of 100 entries.
        assert client.xlen(log) <= 101


async def test_users_and_sessions_are_kept_for_a_while(opened: Open, shared_redis: str) -> None:
    states = opened(user_ttl_s=90_000, session_ttl_s=50, log_days=1)
    await states.record("c", [seen("a", 1, session_id="s", event_id="e")])
    with Redis.from_url(shared_redis) as client:
        left = {key.split(b":")[-2]: client.ttl(key) for key in client.scan_iter("*:[use]:*")}
        assert sorted(left) == [b"e", b"s", b"u"]
        assert (
            40 <= left[b"s"] <= 50 < 86_000 <= left[b"e"] <= 86_400 < 89_900 <= left[b"u"] <= 90_000
        )
        for key in client.scan_iter("*:[us]:*"):
            client.expire(key, 5)
        await states.record("c", [seen("b", 1, session_id="s")])
        assert all(client.ttl(key) > 40 for key in client.scan_iter("*:[us]:*"))


async def test_keys_of_a_user_share_a_slot() -> None:
    for user_id in ("u", "{other}", "é\0}"):
        assert len({key_slot(key.encode()) for key in user_keys("c", user_id)}) == 1


async def test_invalid_requests_are_rejected(states: UserStates) -> None:
    with pytest.raises(InvalidRequest, match=r"interactions\[1\]\.item_id has 0 bytes"):
        await states.record("c", [seen("a", 1), seen("", 1)])
    assert await states.read("c", "u") == EMPTY_STATE
    for ask in (states.delete, states.export):
        with pytest.raises(InvalidRequest) as caught:
            await ask("c", "")
        assert caught.value.field == "user_id"


async def test_an_unavailable_redis_is_reported() -> None:
    client = connect("redis://127.0.0.1:1/0", retries=0)
    states = UserStates(client, Durability(client))
    for asked in (
        states.read("c", "u", "s"),
        states.record("c", [seen("a", 1)]),
        states.export("c", "u"),
        states.delete("c", "u"),
        states.deleted("c", ["u"]),
    ):
        with pytest.raises(NotReady, match="Redis does not answer"):
            await asked
    await client.aclose()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru"])
async def test_a_redis_that_evicts_keys_is_rejected(
    states: UserStates, shared_redis: str, policy: str
) -> None:
    with Redis.from_url(shared_redis) as client:
        client.config_set("maxmemory-policy", policy)
        try:
            for asked in (states.record("c", [seen("a", 1)]), states.delete("c", "u")):
                with pytest.raises(NotReady, match="set maxmemory-policy noeviction"):
                    await asked
            assert client.dbsize() == 0
        finally:
            client.config_set("maxmemory-policy", "noeviction")


async def test_events_that_redis_refuses_are_not_acknowledged(
    states: UserStates, shared_redis: str
) -> None:
    # So that the names are known, and the events alone are refused.
    await states.record("c", [seen("a", 1)])
    with Redis.from_url(shared_redis) as client:
        client.delete(user_keys("c", "u").log)
        client.set(user_keys("c", "u").log, "of another kind")
    with pytest.raises(NotReady, match=r"wrong kind of value.* unknown whether all was recorded"):
        await states.record("c", [seen("a", 2)])


async def test_nothing_is_acknowledged_before_it_is_durable(
    states: UserStates, shared_redis: str
) -> None:
    async with connect(shared_redis, timeout_s=10.0, retries=0) as client:
        # A replica is asked for that is not there.
        strict = UserStates(client, Durability(client, replicas=1, wait_s=0.05))
        await states.record("c", [seen("a", 1)])
        # So that it knows the names, and the events alone are at stake.
        assert items(await strict.read("c", "u")) == ["a"]
        for asked in (strict.record("c", [seen("a", 1)]), strict.delete("c", "u")):
            with pytest.raises(NotReady, match="0 of 1 replicas"):
                await asked


@pytest.mark.usefixtures("opened")
async def test_recording_waits_until_it_is_durable_or_the_time_is_up(shared_redis: str) -> None:
    async with connect(shared_redis, timeout_s=10.0, retries=0) as client:
        durability = Durability(client, wait_s=0.25)
        states = UserStates(client, durability)
        # From here on, its names are cached as durable, and only the events have to wait.
        await states.record("c", [seen("a", 1)])
        durability.replicas = 1
        begin = time.monotonic()
        with pytest.raises(NotReady, match=r"after 0\.25 s .* 0 of 1 replicas"):
            await states.record("c", [seen("a", 2)])
        # Inside a transaction, Redis would not wait.
        assert time.monotonic() - begin >= 0.25


def test_the_log_outlasts_sessions_and_users_outlast_the_log() -> None:
    client = connect("redis://127.0.0.1:1/0")
    with pytest.raises(ValueError, match="session_ttl_s is 86401"):
        UserStates(client, Durability(client), session_ttl_s=86_401, log_days=1)
    with pytest.raises(ValueError, match="user_ttl_s is 86399"):
        UserStates(client, Durability(client), user_ttl_s=86_399, log_days=1)
    with pytest.raises(ValueError, match=r"ring is 1001; 1\.\.1000"):
        UserStates(client, Durability(client), ring=1_001)
