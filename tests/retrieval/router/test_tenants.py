"""What belongs to one tenant does not exist for another, however it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.contract import Audience, Facet, Item, Query, RecommendOptions, SearchOptions
from nearline.errors import InvalidRequest, NotFound, PermissionDenied
from nearline.filters import Equals, In, Not
from retrieval.redis_client.connection import connect
from retrieval.users.keys import dictionary_keys
from tests.index_builder.behaviour.circular_walks import ITEMS, documents
from tests.metric_labels import label_values, naming
from tests.redis_server import give_shared_redis, needs_redis
from tests.retrieval.router.tenants import OF_A, OF_B, READERS, Ids, Tenants, give_tenants, unit

__all__ = ["give_shared_redis", "give_tenants"]  # Fixtures.
pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
ATTRIBUTES = frozenset({c.PayloadField.ATTRIBUTES})
NAMES = ("tenant:a", "tenant:b", "role:staff")


async def searched(client: RetrievalClient, **options: object) -> Ids:
    # Twice: the second reply may come from a cache.
    for _ in range(2):
        reply = await client.search(
            Query(vector=unit(2)),
            replace(SearchOptions(k=ITEMS), **options),  # type: ignore[arg-type]
        )
    return {hit.id for hit in reply.hits}


async def in_a_batch(client: RetrievalClient) -> Ids:
    reply = await client.search_batch([Query(vector=unit(n)) for n in (2, 3)], SearchOptions(k=12))
    return {hit.id for result in reply.results for hit in result.hits}


async def by_words(client: RetrievalClient) -> Ids:
    options = SearchOptions(k=ITEMS, mode=c.SearchMode.LEXICAL)
    return {hit.id for hit in (await client.search(Query(text="title text"), options)).hits}


async def got(client: RetrievalClient) -> Ids:
    return {item.id for item in (await client.get_items(documents())).items}


async def paged(client: RetrievalClient) -> Ids:
    found: Ids = set()
    token = ""
    while True:
        page = await client.list_items(page_size=2, page_token=token)
        found |= {item.id for item in page.items}
        token = page.next_page_token
        if not token:
            return found


async def listed(client: RetrievalClient, audience: Audience) -> Ids:
    for _ in range(2):
        reply = await client.recommend(audience, RecommendOptions(n=ITEMS))
    return {one.hit.id for one in reply.recommendations}


def shown(reply: c.RecommendReply) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.hit.id, tuple(one.reasons)) for one in reply.recommendations]


READS: dict[str, Callable[[RetrievalClient], Awaitable[Ids]]] = {
    "search": searched,
    "exact": lambda client: searched(client, exact=True),
    "grouped": lambda client: searched(client, grouping=c.Grouping("brand", ITEMS)),
    "diverse": lambda client: searched(client, diversity=0.5),
    "filtered": lambda client: searched(client, filter=Not(Equals("readers", "public"))),
    "by readers": lambda client: searched(client, filter=In("readers", NAMES)),
    "batch": in_a_batch,
    "words": by_words,
    "ids": got,
    "pages": paged,
    "popular": lambda client: listed(client, Audience()),
    "session": lambda client: listed(client, Audience(session_id="new")),
    "like an item": lambda client: listed(client, Audience(item_ids=("i04",), surface="item_page")),
}


@pytest.mark.parametrize("name", READS)
async def test_each_tenant_sees_its_own_items_and_the_public_ones(
    tenants: Tenants, name: str
) -> None:
    read = READS[name]
    public = {one for one, readers in READERS.items() if "public" in readers}
    # What a filter or the list itself leaves out. A surface like an item does not list that item.
    least = {"filtered": public, "by readers": public, "like an item": {"i04"}}.get(name, set())
    for client, own in ((tenants.a, OF_A), (tenants.b, OF_B)):
        assert await read(client) == own - least
    everyone = await read(tenants.operator)
    assert everyone >= (OF_A | OF_B) - least
    staff = {one for one, readers in READERS.items() if "role:staff" in readers}
    assert await read(tenants.staff) == (OF_A | staff) - least


async def test_items_of_others_are_not_counted(tenants: Tenants) -> None:
    reply = await tenants.a.count_items(facets=[Facet(field="brand"), Facet(field="readers")])
    brands, readers = reply.facets
    assert reply.count == len(OF_A)
    assert sum(count for _, count in brands.counts) == len(OF_A)
    assert {value for value, _ in readers.counts} == {"public", "tenant:a"}


async def test_items_of_others_are_no_examples(tenants: Tenants) -> None:
    with pytest.raises(NotFound, match="i02"):
        await tenants.a.search(Query(item_ids=("i02",)))
    reply = await tenants.a.search(Query(item_ids=("i01", "i02")))
    assert [one.id for one in reply.results[0].ignored_ids] == ["i02"]
    like = await tenants.a.recommend(Audience(item_ids=("i02",), surface="item_page"))
    assert [one.id for one in like.ignored_ids] == ["i02"]
    # Nor does the order of the others say what goes with it.
    unknown = await tenants.a.recommend(Audience(item_ids=("nothing",), surface="item_page"))
    assert [one.hit.id for one in like.recommendations] == [
        one.hit.id for one in unknown.recommendations
    ]


@pytest.mark.parametrize("excluded", [(), ("i02",)])
async def test_why_an_item_of_others_is_missing_is_not_said(
    tenants: Tenants, excluded: tuple[str, ...]
) -> None:
    options = RecommendOptions(why_not_id="i02", exclude_ids=excluded)
    why = (await tenants.a.recommend(Audience(), options)).why_not
    absent = replace(options, why_not_id="nothing", exclude_ids=("nothing",) if excluded else ())
    unknown = (await tenants.a.recommend(Audience(), absent)).why_not
    assert why is not None and unknown is not None
    assert (why.cause, why.rank) == (unknown.cause, unknown.rank) == (c.Cause.NO_SUCH_ITEM, 0)


async def test_the_taste_of_a_tenants_user_orders_no_search_of_others(tenants: Tenants) -> None:
    for user, item in (("fan", "i04"), ("secret", "i02")):
        done = c.Interaction(item_id=item, user_id=user, session_id=user)
        await tenants.a.record_interactions([done])

    async def found(client: RetrievalClient, **options: Any) -> list[tuple[str, tuple[str, ...]]]:
        wanted = SearchOptions(k=ITEMS, payload=frozenset(), **options)
        reply = await client.search(Query(vector=np.ones(ITEMS, np.float32)), wanted)
        return [(hit.id, tuple(hit.reasons)) for hit in reply.hits]

    for name in ("user_id", "session_id"):
        assert await found(tenants.a, personal=1.0, **{name: "fan"}) != await found(tenants.a)
        assert await found(tenants.b, personal=1.0, **{name: "fan"}) == await found(tenants.b)
        # Nor do items count that the tenant may not see.
        assert await found(tenants.a, personal=1.0, **{name: "secret"}) == await found(tenants.a)
    with pytest.raises(InvalidRequest, match="one by one"):
        queries = [Query(text="a"), Query(text="b")]
        await tenants.a.search_batch(queries, SearchOptions(personal=1.0, user_id="fan"))


async def test_a_page_token_of_others_is_refused(tenants: Tenants) -> None:
    token = (await tenants.b.list_items(page_size=1)).next_page_token
    with pytest.raises(InvalidRequest, match="page_token"):
        await tenants.a.list_items(page_size=1, page_token=token)


async def test_a_user_of_one_tenant_is_nobody_to_another(tenants: Tenants) -> None:
    done = c.Interaction(item_id="i01", user_id="ann", session_id="s")
    assert (await tenants.a.record_interactions([done])).recorded == 1
    assert [one.user_id for one in (await tenants.a.get_user("ann")).interactions] == ["ann"]
    assert (await tenants.b.get_user("ann")).interactions == []
    assert (await tenants.operator.get_user("ann")).interactions == []
    assert (await tenants.b.delete_user("ann")).interactions == 0
    [kept] = (await tenants.a.get_user("ann")).interactions
    assert (kept.item_id, kept.session_id) == ("i01", "s")
    # Neither the user nor the session says anything about those of the other tenant.
    for audience in (Audience(user_id="ann"), Audience(session_id="s")):
        known = await tenants.a.recommend(audience)
        assert known.info.served_by.rung != "popular"
        assert (await tenants.b.recommend(audience)).info.served_by.rung == "popular"
    # An operator reaches it by the id under which it is stored.
    assert (await tenants.operator.delete_user("tenant/a/ann")).interactions == 1
    assert (await tenants.a.get_user("ann")).interactions == []


async def test_interactions_with_items_of_others_do_not_shape_a_list(tenants: Tenants) -> None:
    for user, item in (("one", "i00"), ("both", "i00"), ("both", "i02"), ("hidden", "i02")):
        done = c.Interaction(item_id=item, user_id=user, session_id=user)
        await tenants.a.record_interactions([done])
    told = RecommendOptions(explain=True)
    asked = [Audience(user_id=name) for name in ("one", "both", "hidden", "unknown")]
    asked.append(Audience(session_id="hidden"))
    one, both, hidden, unknown, session = [await tenants.a.recommend(to, told) for to in asked]
    assert shown(both) == shown(one) != shown(unknown)
    assert shown(hidden) == shown(session) == shown(unknown)
    assert hidden.info.served_by.rung == "popular"


async def test_a_list_like_an_item_is_cached_by_the_readers_that_a_tenant_is(
    tenants: Tenants,
) -> None:
    audience, options = Audience(item_ids=("i08",), surface="item_page"), RecommendOptions(n=3)
    for client in (tenants.a, tenants.b):
        first, second = [await client.recommend(audience, options) for _ in range(2)]
        assert first.info.served_by.source is c.Source.LIVE
        assert second.info.served_by.source is c.Source.CACHE
        assert shown(first) == shown(second)


async def test_a_cached_list_counts_for_the_tenant_that_asked_for_it(
    tenants: Tenants, shared_redis: str
) -> None:
    audience = Audience(item_ids=("i08",), surface="item_page")
    async with connect(shared_redis, timeout_s=10.0) as redis, asyncio.timeout(20):
        for client in (tenants.operator, tenants.b):
            await client.recommend(audience, RecommendOptions(filter=Equals("brand", "brand 0")))
        while not (counted := await redis.keys("nearline:{memory}:*")):
            await asyncio.sleep(0.005)
        assert {str(key).split(":")[2] for key in counted} <= {"a", "b"}


async def test_an_id_may_be_as_long_as_documented_whatever_the_tenant(tenants: Tenants) -> None:
    longest = "ü" * 256
    for client, stored in ((tenants.a, longest), (tenants.operator, f"tenant/a/{longest}")):
        done = c.Interaction(item_id="i00", user_id=stored, session_id=stored)
        assert (await client.record_interactions([done])).recorded == 1
        await client.recommend(Audience(user_id=stored, session_id=stored))
    assert len((await tenants.a.get_user(longest)).interactions) == 2
    assert (await tenants.a.delete_user(longest)).interactions == 2
    with pytest.raises(InvalidRequest, match="513 bytes"):
        await tenants.a.get_user(f"{longest}x")


async def test_whether_an_item_of_others_exists_is_not_told_by_an_interaction(
    tenants: Tenants,
) -> None:
    many = [c.Interaction(item_id=one, user_id="x") for one in ("i01", "i02", "nothing")]
    assert (await tenants.a.record_interactions(many)).unknown_items == 2


async def test_items_that_do_not_exist_count_for_the_tenant_that_names_them(
    tenants: Tenants, shared_redis: str
) -> None:
    named = []
    async with connect(shared_redis, timeout_s=10.0) as redis:
        for client, item in (
            (tenants.a, "i04"),
            (tenants.a, "made up"),
            (tenants.a, "made up"),
            (tenants.operator, "made up, too"),
        ):
            await client.record_interactions([c.Interaction(item_id=item, user_id="y")])
            counts = await redis.hgetall(dictionary_keys("default").generation)
            named.append(int(counts.get(b"of a", 0)))
            assert b"of " not in counts
    assert named == [named[0], *[named[0] + 1] * 3]


async def test_an_idempotency_key_is_of_one_tenant(tenants: Tenants) -> None:
    done = c.Interaction(item_id="i00", user_id="twice", event_id="")
    for client, recorded in ((tenants.a, 1), (tenants.b, 1), (tenants.a, 0)):
        reply = await client.record_interactions([done], idempotency_key="k")
        assert reply.recorded == recorded
    assert len((await tenants.a.get_user("twice")).interactions) == 1
    assert len((await tenants.b.get_user("twice")).interactions) == 1
    for client, name in ((tenants.a, "a1"), (tenants.b, "b1")):
        item = Item(id=name, text="mine", vector=unit(1))
        assert (await client.upsert_items([item], idempotency_key="k")).results[0].id == name
        gone = await client.delete_items([name], idempotency_key="l")
        assert [one.outcome for one in gone.results] == [c.WriteOutcome.DELETED]
    for client, name in ((tenants.a, "a1"), (tenants.b, "b1")):
        found = await client.get_items([name], min_watermark=gone.watermark)
        assert [one.id for one in found.ignored_ids] == [name]


async def test_a_repeated_write_of_a_tenant_has_the_results_of_the_first(tenants: Tenants) -> None:
    item = Item(id="again", text="mine", vector=unit(1))
    part = Item(id="again", attributes={"brand": "x"})
    writes: tuple[Callable[[], Awaitable[c.WriteReply]], ...] = (
        lambda: tenants.a.upsert_items([item], idempotency_key="again1"),
        lambda: tenants.a.upsert_items([part], idempotency_key="again2", only_attributes=True),
        lambda: tenants.a.delete_items(["again"], idempotency_key="again3"),
    )
    for write in writes:
        first = await write()
        assert first.results[0].outcome is not c.WriteOutcome.REJECTED
        # The item has another version by now.
        assert (await write()).results == first.results
    with pytest.raises(InvalidRequest, match="used for another request"):
        await tenants.a.upsert_items(
            [item], idempotency_key="again1", if_versions={"again": first.results[0].version}
        )


def written(name: str, **attributes: c.AttributeValue) -> Item:
    return Item(id=name, text="mine", vector=unit(1), attributes=attributes)


async def test_items_of_others_are_neither_replaced_nor_deleted(tenants: Tenants) -> None:
    # Of b, public, and without readers: none of them is a's.
    for name in ("i02", "i00", "i11"):
        for reply in (
            await tenants.a.upsert_items([written(name)]),
            await tenants.a.upsert_items(
                [Item(id=name, attributes={"brand": "x"})], only_attributes=True
            ),
            await tenants.a.delete_items([name]),
        ):
            [result] = reply.results
            assert (result.outcome, result.reason) == (
                c.WriteOutcome.REJECTED,
                "PERMISSION_DENIED",
            )
    [item] = (await tenants.operator.get_items(["i02"])).items
    assert item.text == "text i02"


async def test_what_a_tenant_writes_is_its_own(tenants: Tenants) -> None:
    reply = await tenants.a.upsert_items([written("new"), written("own", readers=["tenant:a"])])
    assert {one.outcome for one in reply.results} == {c.WriteOutcome.APPLIED}
    for client, seen in ((tenants.a, ["new", "own"]), (tenants.b, [])):
        found = await client.get_items(["new", "own"], ATTRIBUTES, min_watermark=reply.watermark)
        assert [item.id for item in found.items] == seen
    # The same id of another tenant, at once: it is taken.
    [taken] = (await tenants.b.upsert_items([written("new")])).results
    assert taken.reason == "PERMISSION_DENIED"
    for readers in (["public"], ["tenant:b"], ["tenant:a", "role:staff"], "tenant:b", []):
        [refused] = (await tenants.a.upsert_items([written("other", readers=readers)])).results
        if readers:
            assert refused.reason == "PERMISSION_DENIED"
            assert "readers may name only tenant:a" in refused.message
        patch = Item(id="own", attributes={"readers": readers})
        [refused] = (await tenants.a.upsert_items([patch], only_attributes=True)).results
        assert refused.reason == "PERMISSION_DENIED"
    patch = Item(id="own", attributes={"brand": "b"})
    [changed] = (await tenants.a.upsert_items([patch], only_attributes=True)).results
    assert changed.outcome is c.WriteOutcome.REPLACED
    reply = await tenants.a.delete_items(["new", "own", "other"])
    assert all(one.outcome is not c.WriteOutcome.REJECTED for one in reply.results)
    assert not (await tenants.a.get_items(["own"], min_watermark=reply.watermark)).items


async def test_of_two_tenants_that_add_an_id_at_once_one_is_told_that_it_is_taken(
    tenants: Tenants,
) -> None:
    for number in range(10):
        name = f"raced{number}"
        replies = await asyncio.gather(
            *(client.upsert_items([written(name)]) for client in (tenants.a, tenants.b))
        )
        outcomes = [reply.results[0] for reply in replies]
        assert sorted(one.outcome.value for one in outcomes) == ["applied", "rejected"]
        assert {one.reason for one in outcomes} == {"", "PERMISSION_DENIED"}
        for client, one in zip((tenants.a, tenants.b), outcomes, strict=True):
            if not one.reason:
                gone = await client.delete_items([name])
                assert gone.results[0].outcome is c.WriteOutcome.DELETED
                await client.get_items([name], min_watermark=gone.watermark)
    # Of one tenant, the last one counts, as without readers.
    replies = await asyncio.gather(*(tenants.a.upsert_items([written("twice")]) for _ in range(3)))
    assert all(reply.results[0].outcome is not c.WriteOutcome.REJECTED for reply in replies)
    reply = await tenants.a.delete_items(["twice"])
    await tenants.a.get_items(["twice"], min_watermark=reply.watermark)


async def test_explanations_do_not_count_the_documents_of_others(tenants: Tenants) -> None:
    options = SearchOptions(mode=c.SearchMode.LEXICAL, explain=True, filter=Equals("brand", "x"))
    reply = await tenants.a.search(Query(text="i02"), options)
    assert (list(reply.results[0].plans), list(reply.results[0].terms)) == ([], [])
    reply = await tenants.operator.search(Query(text="i02"), options)
    assert reply.results[0].plans and reply.results[0].terms


async def test_a_collection_that_a_caller_may_not_read_is_not_in_the_status(
    tenants: Tenants,
) -> None:
    assert (await tenants.elsewhere.serving_status()).collections == []


async def test_no_metric_tells_who_asked_or_for_what(tenants: Tenants) -> None:
    async def use(client: RetrievalClient, mark: str) -> None:
        where = SearchOptions(filter=Equals("brand", mark), unit=f"unit{mark}")
        await client.search(Query(text=f"title {mark}"), replace(where, mode=c.SearchMode.LEXICAL))
        await client.search(Query(vector=unit(2)), where)
        await client.get_items([f"item{mark}"])
        with pytest.raises(InvalidRequest):
            await client.count_items(facets=[Facet(field=f"facet{mark}")] * 200)
        with pytest.raises(NotFound):
            await client.search(Query(item_ids=(f"item{mark}",)))
        with pytest.raises(NotFound):
            await client.search(Query(vector=unit(2)), collection=f"none{mark}")
        audience = Audience(user_id=f"user{mark}", session_id=f"s{mark}")
        await client.recommend(audience, RecommendOptions(why_not_id=f"item{mark}"))
        done = c.Interaction(item_id=f"item{mark}", user_id=f"user{mark}", session_id=f"s{mark}")
        await client.record_interactions([done], idempotency_key=f"key{mark}")
        await client.get_user(f"user{mark}")
        await client.delete_user(f"user{mark}")
        await client.upsert_items([written(f"item{mark}")], idempotency_key=f"write{mark}")
        await client.delete_items([f"item{mark}"])

    await use(tenants.a, "quinn")
    found = await asyncio.to_thread(label_values, tenants.metrics_port)
    assert {"default", "GetUser"} <= found
    assert naming(found, {"quinn", "tenant:", *tenants.keys}) == set()
    assert found.isdisjoint({"a", "b"})
    await use(tenants.b, "rhea")
    assert await asyncio.to_thread(label_values, tenants.metrics_port) <= found


async def test_two_tenants_at_once_never_see_each_other(tenants: Tenants) -> None:
    async def ask(client: RetrievalClient, own: Ids) -> None:
        for _ in range(20):
            assert await searched(client) == own
            assert await listed(client, Audience()) == own

    async with asyncio.TaskGroup() as group:
        for client, own in ((tenants.a, OF_A), (tenants.b, OF_B)):
            for _ in range(4):
                group.create_task(ask(client, own))


async def test_imports_and_their_users_belong_to_a_tenant(tenants: Tenants) -> None:
    async def one(user: str, item: str) -> AsyncIterator[c.InteractionColumns]:
        yield c.InteractionColumns([user], [item], [1])

    for client, item in ((tenants.a, "i01"), (tenants.b, "i02"), (tenants.operator, "i03")):
        # The same name is another import for each.
        for reply in (c.ImportReply(1, 1, 0), c.ImportReply(1, 0, 1)):
            assert await client.import_interactions(one("ann", item), import_id="past") == reply
    # The operator sees whose user it is.
    again = await tenants.operator.import_interactions(one("tenant/a/ann", "i01"), import_id="of-a")
    assert again.recorded == 1
    assert (await tenants.b.delete_user("ann")).imports_left_out
    with pytest.raises(PermissionDenied):
        await tenants.staff.import_interactions(one("ann", "i01"), import_id="past")
