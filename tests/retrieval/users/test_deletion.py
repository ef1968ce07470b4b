"""A deleted user leaves no trace in Redis, except for the time of the deletion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from nearline.contract.recommendations import UserRecord
from nearline.errors import NotReady
from nearline.times import from_us
from retrieval.users.keys import session_keys, user_keys
from retrieval.users.records import EMPTY_STATE, DeletionResult, UserState
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis
from tests.retrieval.users.conftest import Open
from tests.retrieval.users.interactions import items, seen

pytestmark = [pytest.mark.service, needs_redis]
USER = "somebody@example.org"


def everything(client: Any) -> Iterator[bytes]:
    """Yields every name and every value that a Redis holds."""
    for key in client.scan_iter():
        yield key
        kind = client.type(key)
        if kind == b"hash":
            for pair in client.hgetall(key).items():
                yield from pair
        elif kind == b"stream":
            for _, fields in client.xrange(key):
                for pair in fields.items():
                    yield from pair
        elif kind == b"list":
            yield from client.lrange(key, 0, -1)
        else:
            assert kind == b"string"
            yield client.get(key)


async def test_nothing_names_a_deleted_user(states: UserStates, shared_redis: str) -> None:
    await states.record("c", [seen(f"i{n}", n, f"other {n}") for n in range(50)])
    await states.record(
        "c", [seen(f"i{n}", n, USER, session_id=f"s{n % 3}", event_id=str(n)) for n in range(200)]
    )
    await states.record("c", [seen("x", 1, "", session_id="other"), seen("y", 1, USER)])
    keys = {
        key.encode()
        for owner in (user_keys("c", USER), *(session_keys("c", f"s{n}") for n in range(3)))
        for key in (owner.state, owner.recent)
    }
    with Redis.from_url(shared_redis) as client:
        assert keys <= set(client.scan_iter())
    before = time.time_ns() // 1_000
    erased = await states.delete("c", USER)
    after = time.time_ns() // 1_000
    assert erased == DeletionResult(erased.deleted_us, 128, 201, 3)
    assert before <= erased.deleted_us <= after
    with Redis.from_url(shared_redis) as client:
        found = list(everything(client))
        assert [one for one in found if USER.encode() in one or one in (b"s0", b"s1", b"s2")] == []
        assert {b"i7", b"other 7", b"other"} <= set(found)
        # The time of the deletion is all that is left of the user and of those sessions.
        assert keys & set(found) == {user_keys("c", USER).state.encode()}
        [kept] = [key for key in client.scan_iter("*:u:*") if client.hexists(key, "x")]
        assert client.hgetall(kept) == {b"x": b"%d" % erased.deleted_us}
    assert await states.read("c", USER) == UserState((), erased.deleted_us)
    assert await states.read("c", session_id="s0") == EMPTY_STATE
    assert items(await states.read("c", "other 7", "other")) == ["i7", "x"]
    assert await states.export("c", USER) == UserRecord(
        interactions=[], deleted=from_us(erased.deleted_us)
    )


async def test_a_deletion_may_be_repeated(states: UserStates) -> None:
    await states.record("c", [seen("a", 1)])
    first = await states.delete("c", "u")
    second = await states.delete("c", "u")
    assert (first[1:], second[1:]) == ((1, 1, 0, 0), (0, 0, 0, 0))
    assert first.deleted_us <= second.deleted_us
    never_there = await states.delete("c", "nobody")
    assert never_there[1:] == (0, 0, 0, 0)


async def test_a_deletion_is_remembered_as_long_as_a_user(opened: Open, shared_redis: str) -> None:
    states = opened(user_ttl_s=90_000, log_days=1)
    await states.delete("c", "u")
    with Redis.from_url(shared_redis) as client:
        assert 89_900 < client.ttl(user_keys("c", "u").state) <= 90_000


async def test_a_deletion_that_redis_refuses_is_reported(
    states: UserStates, shared_redis: str
) -> None:
    await states.record("c", [seen("a", 1, session_id="s")])
    with Redis.from_url(shared_redis) as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(NotReady, match="NOREPLICAS"):
                await states.delete("c", "u")
        finally:
            client.config_set("min-replicas-to-write", 0)
    assert items(await states.read("c", "u")) == ["a"]
    assert (await states.delete("c", "u"))[1:] == (1, 1, 1, 0)


async def test_a_user_may_come_back(states: UserStates) -> None:
    event = seen("a", 1, event_id="e")
    await states.record("c", [event, seen("b", 2)])
    erased = await states.delete("c", "u")
    # What the user does again is new.
    assert (await states.record("c", [event])).recorded == 1
    state = await states.read("c", "u")
    assert (items(state), state.deleted_us) == (["a"], erased.deleted_us)
    assert list((await states.export("c", "u")).interactions) == [event]


async def test_the_next_build_learns_who_was_deleted(opened: Open) -> None:
    states = opened(session_ttl_s=60)
    await states.record("c", [seen("a", 1, f"user {n}") for n in range(10)])
    erased = {f"user {n}": (await states.delete("c", f"user {n}")).deleted_us for n in (3, 5)}
    asked = [f"user {n}" for n in range(2_500)]
    assert await states.deleted("c", asked) == erased
    assert await states.deleted("c", []) == {}
    assert {one.user_id async for one in states.logged("c")} == {
        f"user {n}" for n in range(10) if n not in (3, 5)
    }
