"""Any sequence of requests has the same effect on Redis and on plain lists."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import pytest
from hypothesis import given, settings, strategies as st

from nearline.contract.recommendations import Interaction
from nearline.times import from_us
from retrieval.redis_client.connection import connect
from retrieval.redis_client.durability import Durability
from retrieval.users.keys import dictionary_keys
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis, valkey
from tests.retrieval.users.interactions import at
from tests.retrieval.users.plain_states import PlainStates, time_us
from tests.scale import scaled

pytestmark = [pytest.mark.service, needs_redis]
RING = 4
# A user and a session may have the same id.
USERS = ["u", "é\0"]
SESSIONS = ["s", "u"]


class Record(NamedTuple):
    router: int
    interactions: Sequence[Interaction]
    key: str


class Delete(NamedTuple):
    router: int
    user_id: str


class Flush(NamedTuple):
    pass


class GrowOld(NamedTuple):
    """The dictionary is replaced by the next router that asks for a number."""


Step: TypeAlias = Record | Delete | Flush | GrowOld
INTERACTIONS = st.builds(
    Interaction,
    item_id=st.sampled_from(["a", "b", "c\r\n\0"]),
    user_id=st.sampled_from(["", *USERS]),
    session_id=st.sampled_from(["", *SESSIONS]),
    kind=st.sampled_from(["view", "cart"]),
    time=st.sampled_from([at(quarters / 4) for quarters in range(12)]),
    weight=st.sampled_from([None, None, 0.5, 2.0]),
    event_id=st.sampled_from(["", "", "e1", "e2", "k/0"]),
).filter(lambda one: bool(one.user_id or one.session_id))
RECORDS = st.builds(
    Record,
    st.integers(0, 1),
    st.lists(INTERACTIONS, min_size=1, max_size=5),
    st.sampled_from(["", "", "k"]),
)
DELETES = st.builds(Delete, st.integers(0, 1), st.sampled_from(USERS))
STEPS = st.one_of(
    RECORDS, RECORDS, RECORDS, DELETES, st.just(Flush()), st.just(GrowOld()), st.just(GrowOld())
)


async def check_same(states: UserStates, plain: PlainStates, collection: str) -> None:
    """Checks all that can be read."""
    for user_id in ("", *USERS):
        for session_id in ("", *SESSIONS):
            state = await states.read(collection, user_id, session_id)
            assert list(state.events) == plain.read(user_id, session_id)
            assert bool(state.deleted_us) == (user_id in plain.deleted)
    assert (await states.deleted(collection, USERS)).keys() == plain.deleted
    logged = [one async for one in states.logged(collection)]
    assert sorted(logged, key=str) == sorted(plain.logged(), key=str)
    for user_id in USERS:
        shown = (await states.export(collection, user_id)).interactions
        kept = [
            (one.item_id, one.session_id, from_us(time_us(one)))
            for one in plain.log
            if one.user_id == user_id
        ]
        assert sorted((one.item_id, one.session_id, one.time) for one in shown) == sorted(kept)


def test_states_in_redis_behave_like_plain_lists() -> None:
    examples = 0

    async def compare(url: str, steps: Sequence[Step]) -> None:
        nonlocal examples
        examples += 1
        collection, plain = f"c{examples}", PlainStates(RING)
        async with connect(url, timeout_s=10.0, retries=0) as client:
            # The dictionary of the second is full after three names.
            routers = [
                UserStates(client, Durability(client), ring=RING, **most)
                for most in ({}, {"max_names": 3})
            ]
            for step in steps:
                if isinstance(step, Record):
                    found = await routers[step.router].record(
                        collection, step.interactions, step.key
                    )
                    assert found == plain.record(step.interactions, step.key)
                elif isinstance(step, Delete):
                    erased = await routers[step.router].delete(collection, step.user_id)
                    assert erased[1:4] == plain.delete(step.user_id)
                elif isinstance(step, GrowOld):
                    await client.hset(dictionary_keys(collection).generation, "created", "1")
                else:
                    await client.flushall()
                    plain.flush()
            for router in routers:
                await check_same(router, plain, collection)

    with asyncio.Runner() as runner:

        @settings(max_examples=scaled(30, nightly=300), deadline=None)
        @given(steps=st.lists(STEPS, min_size=1, max_size=8))
        def check(steps: Sequence[Step]) -> None:
            runner.run(compare(url, steps))

        redis = valkey()
        url = runner.run(redis.__aenter__())
        try:
            check()
        finally:
            runner.run(redis.__aexit__(None, None, None))
