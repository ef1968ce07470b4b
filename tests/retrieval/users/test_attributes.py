"""Attributes of users: stored with their state, bounded, exported, and erased with it."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.crc import key_slot

from nearline.contract import Attributes
from nearline.errors import InvalidRequest
from retrieval.protocols.request_validation import check_attributes
from retrieval.users.keys import user_keys
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis
from tests.retrieval.users.interactions import items, seen
from tests.retrieval.users.test_deletion import everything

ANN: Attributes = {"country": "DE", "age": 34, "share": 0.5, "pro": True}


@pytest.mark.service
@needs_redis
async def test_a_list_and_an_export_have_the_attributes_set_last(states: UserStates) -> None:
    assert (await states.read("c", "ann")).attributes == {}
    await states.set_attributes("c", "ann", {"country": "FR", "plan": "free"})
    await states.record("c", [seen("a", 1, "ann"), seen("b", 2, "bob")])
    await states.set_attributes("c", "ann", ANN)
    await states.record("c", [seen("b", 3, "ann")])
    state = await states.read("c", "ann")
    assert (items(state), state.attributes) == (["b", "a"], ANN)
    assert type(state.attributes["pro"]) is bool and type(state.attributes["age"]) is int
    assert (await states.export("c", "ann")).attributes == ANN
    assert (await states.read("c", "bob")).attributes == {}
    assert await states.attributes("c", ["ann", "bob", "nobody"]) == {"ann": ANN}
    assert (await states.read("other", "ann")).attributes == {}
    await states.set_attributes("c", "ann", {})
    assert (await states.export("c", "ann")).attributes == {}
    assert await states.attributes("c", ["ann"]) == {}


@pytest.mark.service
@needs_redis
async def test_equal_attributes_are_equal_states(states: UserStates) -> None:
    # Lists that are kept for a user are compared by their state.
    await states.set_attributes("c", "ann", ANN)
    first = await states.fetch("c", "ann")
    await states.set_attributes("c", "ann", dict(reversed(list(ANN.items()))))
    assert await states.fetch("c", "ann") == first
    await states.set_attributes("c", "ann", {**ANN, "age": 35})
    assert await states.fetch("c", "ann") != first


@pytest.mark.service
@needs_redis
async def test_a_deletion_erases_them_everywhere(states: UserStates, shared_redis: str) -> None:
    secret: Attributes = {"country": "Ruritania", "pro": True}
    await states.set_attributes("c", "ann", secret)
    erased = await states.delete("c", "ann")
    assert (erased.attributes, erased.interactions) == (2, 0)
    with Redis.from_url(shared_redis) as client:
        assert not [one for one in everything(client) if b"Ruritania" in one]
    assert (await states.read("c", "ann")).attributes == {}
    assert (await states.export("c", "ann")).attributes == {}
    assert await states.attributes("c", ["ann"]) == {}
    assert (await states.delete("c", "ann")).attributes == 0
    # Somebody who comes back starts anew, and the deletion is remembered.
    await states.set_attributes("c", "ann", {"country": "FR"})
    state = await states.read("c", "ann")
    assert (state.attributes, state.deleted_us > erased.deleted_us) == ({"country": "FR"}, True)


@pytest.mark.service
@needs_redis
async def test_they_are_kept_for_as_long_as_the_user(states: UserStates, shared_redis: str) -> None:
    await states.set_attributes("c", "ann", ANN)
    key = user_keys("c", "ann").state
    with Redis.from_url(shared_redis) as client:
        assert 179 * 86_400 < client.ttl(key) <= 180 * 86_400
        client.expire(key, 60)
        await states.record("c", [seen("a", 1, "ann")])
        assert client.ttl(key) > 179 * 86_400


def test_they_share_a_slot_with_the_history() -> None:
    # Otherwise a Redis Cluster could not erase both with one script.
    keys = user_keys("c", "ann")
    assert len({key_slot(one.encode()) for one in keys}) == 1


@pytest.mark.parametrize(
    ("attributes", "field", "problem"),
    [
        ({f"n{at}": at for at in range(33)}, "attributes", "33 entries; 0..32 are allowed"),
        ({"": 1}, "attributes (a name)", "0 bytes; 1..64"),
        ({"n" * 65: 1}, "attributes (a name)", "65 bytes; 1..64"),
        ({"country": "ä" * 129}, "attributes.country", "258 bytes; 0..256"),
        ({"age": float("nan")}, "attributes.age", "is nan; send a text, a finite number"),
        ({"age": float("inf")}, "attributes.age", "is inf; send a text, a finite number"),
        ({"tags": ["a"]}, "attributes.tags", "is ['a']; send a text"),
        ({"tags": None}, "attributes.tags", "is None; send a text"),
    ],
)
def test_a_limit_is_named_with_a_remedy(attributes: Attributes, field: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_attributes(attributes, "attributes")
    assert refused.value.field == field
    assert problem in refused.value.message


def test_the_largest_attributes_are_accepted() -> None:
    check_attributes({f"{at:064}": "ä" * 128 for at in range(32)}, "attributes")


@pytest.mark.service
@needs_redis
async def test_an_integer_that_no_message_holds_is_refused(states: UserStates) -> None:
    with pytest.raises(InvalidRequest, match="64 bits"):
        await states.set_attributes("c", "ann", {"n": 10**400})
    with pytest.raises(InvalidRequest, match="user_id"):
        await states.set_attributes("c", "", {"n": 1})
