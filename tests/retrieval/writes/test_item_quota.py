"""A tenant has as many items as it may, and can always replace and delete them."""

from __future__ import annotations

import asyncio

import pytest

from nearline import contract as c
from nearline.access.caller import Caller
from nearline.access.readers import Ownership
from retrieval.writes.item_quota import ItemQuota
from tests.retrieval.writable_collection import Written, written
from tests.retrieval.writes.test_writer import (
    APPLIED,
    DELETED,
    REJECTED,
    REPLACED,
    item,
    outcomes,
)

OWNER = Ownership("tags", Caller("shop"))
LIMIT = ("tenant 'shop'", 3)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def collection(
    clock: Clock, limit: tuple[str, int] | None = LIMIT, owner: Ownership | None = OWNER
) -> Written:
    here = written(owner=owner, quota=ItemQuota(lambda: limit, clock))
    # The items of others do not count.
    here.put(item("mine", tags=["tenant:shop"]), *(item(f"o{n}", tags=["tenant:x"]) for n in "ab"))
    return here


async def upsert(here: Written, *names: str) -> list[c.WriteOutcome]:
    return outcomes(await here.writer.upsert_items([item(one) for one in names]))


async def test_new_items_beyond_the_limit_are_refused_one_by_one() -> None:
    here = collection(Clock())
    reply = await here.writer.upsert_items([item(one) for one in ("mine", "n1", "n2", "n3", "n4")])
    assert outcomes(reply) == [REPLACED, APPLIED, APPLIED, REJECTED, REJECTED]
    assert {one.reason for one in reply.results[3:]} == {"INVALID_REQUEST"}
    said = "tenant 'shop' has 3 items in 'default', and may have 3 (items)"
    assert said in reply.results[4].message


async def test_what_was_added_counts_at_once_and_what_was_deleted_within_seconds() -> None:
    clock = Clock()
    here = collection(clock)
    assert await upsert(here, "n1", "n2") == [APPLIED, APPLIED]
    assert await upsert(here, "n3") == [REJECTED]
    assert await upsert(here, "mine", "n1") == [REPLACED, REPLACED]
    assert outcomes(await here.writer.delete_items(["n1"])) == [DELETED]
    assert await upsert(here, "n3") == [REJECTED]
    clock.now_s = 5.0
    assert await upsert(here, "n3", "n4") == [APPLIED, REJECTED]


async def test_requests_at_the_same_time_share_one_room() -> None:
    here = collection(Clock())
    got = await asyncio.gather(*(upsert(here, f"n{number}") for number in range(6)))
    assert got.count([APPLIED]) == 2
    assert got.count([REJECTED]) == 4


async def test_patches_need_no_room() -> None:
    here = collection(Clock(), ("tenant 'shop'", 1))
    patch = c.Item(id="mine", attributes={"kind": "x"})
    reply = await here.writer.upsert_items([patch], only_attributes=True)
    assert REJECTED not in outcomes(reply)


@pytest.mark.parametrize(("limit", "owner"), [(None, OWNER), (LIMIT, None)])
async def test_without_a_limit_or_an_owner_nothing_is_refused(
    limit: tuple[str, int] | None, owner: Ownership | None
) -> None:
    here = collection(Clock(), limit, owner)
    assert await upsert(here, "n1", "n2", "n3", "n4") == [APPLIED] * 4
