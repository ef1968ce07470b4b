"""What a user's log entries cost to find is what the user has, not what others have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis import Redis

from nearline.errors import NotReady
from nearline.store.snapshot import partition_of
from retrieval.users import deletion, log_entries, states as user_states
from retrieval.users.keys import user_keys
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis
from tests.retrieval.users.interactions import seen

pytestmark = [pytest.mark.service, needs_redis]
# A user in the partition of "u".
OTHER = next(f"v{n}" for n in range(10_000) if partition_of(f"v{n}") == partition_of("u"))


async def _cost(client: Any, call: Callable[[], Awaitable[object]]) -> int:
    """Returns the number of commands that Redis ran, those of scripts included."""
    client.config_resetstat()
    await call()
    return sum(one["calls"] for one in client.info("commandstats").values())


@pytest.mark.parametrize("user_id", ["u", "nobody"])
async def test_reading_or_deleting_a_user_costs_the_same_whatever_others_have(
    states: UserStates, shared_redis: str, monkeypatch: pytest.MonkeyPatch, user_id: str
) -> None:
    monkeypatch.setattr(log_entries, "_SCANNED", 10)
    costs = []
    with Redis.from_url(shared_redis) as client:
        for others in (0, 500):
            first = [seen(f"i{n}", n) for n in range(3)]
            await states.record("c", first)
            if others:
                await states.record("c", [seen(f"x{n}", n, OTHER) for n in range(others)])
            await states.record("c", [seen("i3", 3)])
            costs.append(
                [
                    await _cost(client, lambda: states.export("c", user_id)),
                    await _cost(client, lambda: states.delete("c", user_id)),
                ]
            )
            await states.delete("c", "u")
    assert costs[0] == costs[1]


async def test_many_entries_are_read_page_by_page_newest_first(
    states: UserStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_entries, "_FOLLOWED", 3)
    for n in range(10):
        await states.record("c", [seen(f"i{n}", 0), seen(f"x{n}", n, OTHER)])
    found = (await states.export("c", "u")).interactions
    assert [one.item_id for one in found] == [f"i{n}" for n in reversed(range(10))]


async def test_reading_a_user_costs_no_more_than_the_newest_interactions(
    states: UserStates, shared_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_entries, "_FOLLOWED", 3)
    monkeypatch.setattr(user_states, "_MOST", 5)
    costs = []
    with Redis.from_url(shared_redis) as client:
        for recorded in (range(10), range(10, 300)):
            await states.record("c", [seen(f"i{n}", n) for n in recorded])
            costs.append(await _cost(client, lambda: states.export("c", "u")))
    assert costs[0] == costs[1]
    found = (await states.export("c", "u")).interactions
    assert [one.item_id for one in found] == [f"i{n}" for n in reversed(range(295, 300))]
    # A deletion finds the others, too.
    assert (await states.delete("c", "u")).log_entries == 300


async def test_a_deletion_that_ends_half_way_is_finished_by_the_next(
    states: UserStates, shared_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_AT_ONCE", 3)
    await states.record("c", [seen(f"i{n}", n, session_id=f"s{n}") for n in range(10)])
    durable, replies = states._durability.check_reply, iter([None, None, NotReady("gone")])

    def refuse(reply: Any) -> None:
        if error := next(replies, None):
            raise error
        durable(reply)

    with monkeypatch.context() as patch, pytest.raises(NotReady, match="gone"):
        patch.setattr(states._durability, "check_reply", refuse)
        await states.delete("c", "u")
    # The user comes back, which a deletion that is repeated deletes as well.
    await states.record("c", [seen("new", 11)])
    await states.delete("c", "u")
    keys = user_keys("c", "u")
    with Redis.from_url(shared_redis) as client:
        assert (client.xlen(keys.log), client.hkeys(keys.state)) == (0, [b"x"])


async def test_what_a_user_does_during_a_deletion_stays_findable(
    states: UserStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    await states.record("c", [seen("old", 1)])
    execute = states._durability.execute

    async def come_back(pipe: Any) -> Any:
        monkeypatch.setattr(states._durability, "execute", execute)
        reply = await execute(pipe)
        # The state is gone, the entries are still there.
        await states.record("c", [seen("new", 2)])
        return reply

    monkeypatch.setattr(states._durability, "execute", come_back)
    assert (await states.delete("c", "u")).log_entries == 1
    await states.record("c", [seen("newer", 3)])
    found = (await states.export("c", "u")).interactions
    assert [one.item_id for one in found] == ["newer", "new"]
    assert (await states.delete("c", "u")).log_entries == 2


async def test_entries_of_earlier_versions_are_found_and_deleted(
    states: UserStates, shared_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_entries, "_SCANNED", 2)
    log = user_keys("c", "u").log
    with Redis.from_url(shared_redis) as client:

        def log_as_before(item_id: str) -> None:
            fields = {"user": "u", "item": item_id, "kind": "view", "time": "1"}
            client.xadd(log, cast(Any, fields))

        # Before an update of the routers, during it, and after one of them went back.
        log_as_before("a")
        for item_id in "bcde":
            await states.record("c", [seen(item_id, 2)])
            log_as_before(item_id.upper())
        found = (await states.export("c", "u")).interactions
        assert sorted(one.item_id for one in found) == sorted("abcdeBCDE")
        await states.record("c", [seen("f", 2)])
        assert len((await states.export("c", "u")).interactions) == 10
        assert (await states.delete("c", "u")).log_entries == client.xlen(log) + 10 == 10
