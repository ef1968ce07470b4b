"""The dictionary of item ids is replaced in time, and no history is lost thereby."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.crc import key_slot

from nearline.contract.recommendations import RecordReply
from nearline.errors import FeedBlocked
from retrieval.users import dictionary
from retrieval.users.codec import unpack
from retrieval.users.keys import dictionary_keys, user_keys
from retrieval.users.records import EMPTY_STATE, MadeUp
from tests.redis_server import needs_redis
from tests.retrieval.users.conftest import Open
from tests.retrieval.users.interactions import items, seen

pytestmark = [pytest.mark.service, needs_redis]
KEYS = dictionary_keys("c")


@pytest.fixture
def redis(shared_redis: str) -> Iterator[Redis]:
    """Returns a client of the Redis of the states."""
    with Redis.from_url(shared_redis, decode_responses=True) as client:
        yield client


def grow_old(redis: Redis) -> str:
    """Makes the dictionary older than any history; returns its id."""
    assert redis.hset(KEYS.generation, "created", 1) == 0
    return str(redis.get(KEYS.dictionary))


def retired(redis: Redis) -> set[str]:
    """Returns the keys of replaced dictionaries."""
    return {*redis.scan_iter(f"{KEYS.items}:*"), *redis.scan_iter(f"{KEYS.kinds}:*")}


def dictionary_of(redis: Redis, user_id: str = "u") -> str:
    """Returns the id of the dictionary that encodes the history of a user."""
    key = user_keys("c", user_id).state
    ask: Callable[..., bytes] = redis.execute_command
    return unpack(ask("HGET", key, "h", NEVER_DECODE=True)).dictionary_id.hex()


async def test_a_history_outlives_the_dictionary_that_encodes_it(
    opened: Open, redis: Redis
) -> None:
    states = opened()
    await states.record("c", [seen("a", 1), seen("b", 2), seen("a", 3)])
    old = grow_old(redis)
    await states.record("c", [seen("new", 4, "other")])
    assert redis.get(KEYS.dictionary) != old
    assert retired(redis) == set(KEYS.retired(bytes.fromhex(old)))
    for reader in (states, opened()):
        assert items(await reader.read("c", "u")) == ["a", "b", "a"]
        shown = (await reader.export("c", "u")).interactions
        assert [one.item_id for one in shown] == ["a", "b", "a"]
    # The next write encodes it with the new dictionary, even one of a process that never met it.
    await opened().record("c", [seen("c", 5)])
    assert dictionary_of(redis) == redis.get(KEYS.dictionary)
    redis.delete(*retired(redis))
    for reader in (states, opened()):
        assert items(await reader.read("c", "u")) == ["c", "a", "b", "a"]


async def test_a_duplicate_moves_the_history_that_it_prolongs(opened: Open, redis: Redis) -> None:
    states = opened()
    event = seen("a", 1, event_id="e")
    await states.record("c", [event, seen("b", 2)])
    grow_old(redis)
    await states.record("c", [seen("new", 4, "other")])
    assert await states.record("c", [event]) == RecordReply(0, 1)
    redis.delete(*retired(redis))
    assert items(await opened().read("c", "u")) == ["b", "a"]


async def test_old_names_are_kept_as_long_as_histories_and_no_longer(
    opened: Open, redis: Redis
) -> None:
    states = opened(user_ttl_s=200_000, log_days=1)
    await states.record("c", [seen("gone", 1)])
    grow_old(redis)
    # As if the last new name was long ago.
    redis.expire(KEYS.items, 1_000)
    await states.record("c", [seen("new", 4, "other")])
    for key in retired(redis) | set(KEYS):
        assert 280_000 < redis.ttl(key) <= 286_400
    assert redis.hkeys(KEYS.numbers) == ["inew", "kview"]
    assert redis.lrange(KEYS.items, 0, -1) == ["new"]
    # As if that time had passed.
    redis.delete(user_keys("c", "u").state, *retired(redis))
    assert set(redis.scan_iter("*/items}:*", _type="list")) == {KEYS.items, KEYS.kinds}


async def test_names_are_kept_for_the_router_that_keeps_histories_longest(
    opened: Open, redis: Redis
) -> None:
    short, long = (opened(user_ttl_s=ttl_s, log_days=1) for ttl_s in (90_000, 200_000))
    await long.record("c", [seen("a", 1)])
    await short.record("c", [seen("b", 2, "u2")])
    assert redis.ttl(KEYS.items) > 200_000
    redis.hincrby(KEYS.generation, "created", -100_000)
    await short.record("c", [seen("c", 3, "u3")])
    assert not retired(redis)
    grow_old(redis)
    await short.record("c", [seen("d", 4, "u4")])
    assert min(map(redis.ttl, retired(redis))) > 200_000


async def test_two_routers_replace_a_dictionary_once(opened: Open, redis: Redis) -> None:
    routers = [opened() for _ in range(2)]
    for n, router in enumerate(routers):
        await router.record("c", [seen(f"old {n} {u}", u, f"user {u}") for u in range(40)])
    grow_old(redis)
    await asyncio.gather(
        *(
            router.record("c", [seen(f"new {n} {u}", 100 + n, f"user {u}")])
            for n, router in enumerate(routers)
            for u in range(40)
        )
    )
    assert len(retired(redis)) == 2
    redis.delete(*retired(redis))
    for u in range(40):
        wanted = [f"new 1 {u}", f"new 0 {u}", f"old 1 {u}", f"old 0 {u}"]
        for reader in (*routers, opened()):
            assert items(await reader.read("c", f"user {u}")) == wanted


async def test_a_router_that_missed_the_replacement_loses_nothing(
    opened: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early, idle = opened(), opened(), opened()
    names = [f"user {u}" for u in range(40)]
    await late.record("c", [seen("a", 1, name) for name in names])
    await idle.record("c", [seen("a", 1, "other")])
    await early.record("c", [seen("b", 2, "other")])
    old = grow_old(redis)
    await early.record("c", [seen("c", 3, name) for name in names[:20]])
    # It knows all names, and asks nobody: within the hour, it may use the old dictionary in
    # partitions where nobody has used the new one.
    await late.record("c", [seen("a", 4, name) for name in names[20:]])
    assert old in {dictionary_of(redis, name) for name in names[20:]}
    await late.record("c", [seen("a", 4, name) for name in names[:20]])
    assert {dictionary_of(redis, name) for name in names[:20]} == {redis.get(KEYS.dictionary)}
    monkeypatch.setattr(dictionary, "_CHECK_S", 0.0)
    await idle.record("c", [seen("a", 5, name) for name in names[20:]])
    redis.delete(*retired(redis))
    for reader in (late, early, opened()):
        found = [items(await reader.read("c", name)) for name in names]
        assert found == [["a", "c", "a"]] * 20 + [["a", "a", "a"]] * 20


async def test_a_full_dictionary_is_replaced_early(opened: Open, redis: Redis) -> None:
    states = opened(max_names=10)
    for n in range(40):
        await states.record("c", [seen(f"item {n}", n), seen(f"item {n}", n, f"user {n}")])
        assert redis.hlen(KEYS.numbers) <= 10 + 41
    assert len(retired(redis)) > 6
    # More dictionaries than a process caches.
    for reader in (states, opened()):
        assert items(await reader.read("c", "u")) == [f"item {n}" for n in range(39, -1, -1)]
        for n in range(40):
            assert items(await reader.read("c", f"user {n}")) == [f"item {n}"]


async def test_many_names_are_numbered_and_named_in_parts(
    opened: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dictionary, "_NAMES_PER_CALL", 7)
    states = opened()
    for _ in range(2):
        await states.record("c", [seen(f"item {n}", n % 30, f"user {n // 30}") for n in range(60)])
        grow_old(redis)
    await opened().record("c", [seen("new", -1, f"user {n}") for n in range(2)])
    for user in range(2):
        wanted = [f"item {n}" for n in range(29 + 30 * user, 30 * user - 1, -1) for _ in range(2)]
        state = await opened().read("c", f"user {user}")
        assert items(state) == [*wanted, "new"]
        assert {event.kind for event in state.events} == {"view"}


async def test_a_lost_dictionary_means_an_empty_history(opened: Open, redis: Redis) -> None:
    await opened().record("c", [seen("a", 1), seen("b", 2, event_id="e")])
    grow_old(redis)
    redis.delete(*KEYS)
    states = opened()
    assert await states.read("c", "u") == EMPTY_STATE
    assert await states.record("c", [seen("b", 2, event_id="e")]) == RecordReply(0, 1)
    assert await states.read("c", "u") == EMPTY_STATE
    await states.record("c", [seen("c", 3)])
    assert items(await states.read("c", "u")) == ["c"]


async def test_a_dictionary_without_a_time_is_used_on(opened: Open, redis: Redis) -> None:
    states = opened()
    await states.record("c", [seen("a", 1)])
    # As an earlier version wrote it.
    redis.delete(KEYS.generation)
    for key in KEYS:
        redis.persist(key)
    old = redis.get(KEYS.dictionary)
    await states.record("c", [seen("b", 2)])
    await states.record("c", [seen("c", 3)])
    assert (redis.get(KEYS.dictionary), retired(redis)) == (old, set())
    assert items(await opened().read("c", "u")) == ["c", "b", "a"]
    assert int(redis.hget(KEYS.generation, "created") or 0) > 1_700_000_000
    assert min(map(redis.ttl, KEYS)) > 0


def test_keys_of_a_dictionary_share_a_slot() -> None:
    keys = [*KEYS, *KEYS.retired(b"abcd")]
    assert len({key_slot(key.encode()) for key in keys}) == 1


async def test_a_tenant_makes_up_so_many_names_and_no_more(opened: Open, redis: Redis) -> None:
    states = opened(max_names=40)

    async def record(tenant: str, names: list[str], exist: int = 0) -> RecordReply:
        made_up = MadeUp(tenant, names[exist:])
        return await states.record("c", [seen(one, 1) for one in names], "", made_up)

    # An eighth of forty, the kind among them; what exists does not count, nor what is known.
    assert (await record("a", ["1", "2", "3", "item"], exist=4)).recorded == 4
    assert (await record("a", ["a1", "a2", "a3", "a4"])).recorded == 4
    for _ in range(2):
        with pytest.raises(FeedBlocked, match=r"tenant 'a' has named 5 items .* free"):
            await record("a", ["a1", "a5"])
        assert "ia5" not in redis.hkeys(KEYS.numbers)
    assert (await record("a", ["a1", "a4"])).recorded == 2
    assert (await record("a", ["new"], exist=1)).recorded == 1
    # Others have their own, and who has no tenant has no limit.
    assert (await record("b", ["b1"])).recorded == 1
    assert (await record("", [f"c{number}" for number in range(10)])).recorded == 10
    # As the guide says, an operator frees them.
    redis.delete(KEYS.dictionary)
    states = opened(max_names=40)
    assert (await record("a", ["a1"])).recorded == 1
    assert redis.hget(KEYS.generation, "of a") == "2"
