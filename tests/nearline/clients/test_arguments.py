"""Clients take what people write, and name the argument that they cannot take."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import EmbeddingClient, GenerationClient, IngestClient, RetrievalClient
from nearline.clients.arguments import converter
from nearline.clients.blocking import BlockingRetrievalClient
from nearline.errors import InvalidRequest
from nearline.filters import All, Any as AnyOf, Equals, In, Not, Range
from tests.nearline.wire.full_records import FullRecords
from tests.nearline.wire.loopback import RecordingService
from tests.nearline.wire.test_full_calls import (
    EMBEDDING,
    GENERATION,
    INGEST,
    PROTOCOLS,
    RETRIEVAL,
    Side,
    joined,
)

# Never connects: what is refused is not sent.
NOWHERE = "127.0.0.1:1"
NAN, INF = math.nan, math.inf
WHEN = datetime(2026, 5, 1, tzinfo=UTC)
TITLE, TEXT = c.PayloadField.TITLE, c.PayloadField.TEXT
UNSET: Any = object()


async def received(side: Side, method: str, *given: Any, **more: Any) -> dict[str, Any]:
    """Returns the arguments of a call as the service receives them."""
    service = RecordingService(FullRecords(), *PROTOCOLS)
    async with joined(side, service) as (client, _):
        answer = getattr(client, method)(*given, **more)
        if hasattr(answer, "__aiter__"):
            assert [one async for one in answer]
        else:
            await answer
    return dict(service.calls[0][1])


async def options_received(**options: Any) -> c.SearchOptions:
    found = await received(RETRIEVAL, "search", "red shoes", c.SearchOptions(**options))
    return found["options"]  # type: ignore[no-any-return]


class Unknown:
    pass


def item(**fields: Any) -> c.Item:
    return c.Item(**{"id": "a", **fields})


# Name of an option, a wrong value, and the path where it differs from the name.
OPTIONS: list[tuple[str, Any, str]] = [
    ("k", "5", ""),
    ("k", 5.0, ""),
    ("k", True, ""),
    ("mode", "densest", ""),
    ("mode", 1, ""),
    ("level", "page", ""),
    ("payload", {"titel"}, "payload[0]"),
    ("payload", "title", ""),
    ("payload", 5, ""),
    ("exact", "yes", ""),
    ("filter", "price <", "filter"),
    ("filter", 5, ""),
    ("min_score", NAN, ""),
    ("min_score", "0.5", ""),
    ("dense_weight", INF, ""),
    ("grouping", c.Grouping("brand", size="2"), "grouping.size"),  # type: ignore[arg-type]
    ("grouping", 2, ""),
    ("min_watermark", "w", ""),
]
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("search", (5,), {}, "query"),
    ("search", (c.Query(text=5),), {}, "query.text"),  # type: ignore[arg-type]
    ("search", (c.Query(text="\ud800"),), {}, "query.text"),
    ("search", (c.Query(vector="abc"),), {}, "query.vector"),  # type: ignore[arg-type]
    ("search", (c.Query(vector=[0.1, "x"]),), {}, "query.vector"),  # type: ignore[list-item]
    ("search", (c.Query(vector=[[0.1], [0.2, 0.3]]),), {}, "query.vector"),  # type: ignore
    ("search", (c.Query(vector=[]),), {}, "query.vector"),
    ("search", (c.Query(vector=[1.0, NAN]),), {}, "query.vector[1]"),
    ("search", (c.Query(vector=np.array([INF, 1], np.float32)),), {}, "query.vector[0]"),
    ("search", (c.Query(vector=[1e60, 1.0]),), {}, "query.vector[0]"),
    ("search", (c.Query(item_ids="abc"),), {}, "query.item_ids"),
    ("search", (c.Query(item_ids=("a", None)),), {}, "query.item_ids[1]"),  # type: ignore
    ("search", ("x", {"kk": 3}), {}, "options"),
    ("search", ("x", {"k": "3"}), {}, "options.k"),
    ("search", ("x",), {"collection": 5}, "collection"),
    ("search", ("x",), {"timeout_s": "5"}, "timeout_s"),
    ("search_batch", ("one text",), {}, "queries"),
    ("search_batch", (["one", 2],), {}, "queries[1]"),
    ("get_items", ("abc",), {}, "ids"),
    ("get_items", (["a", 1.5],), {}, "ids[1]"),
    ("get_items", (["a"], ["titel"]), {}, "payload[0]"),
    ("list_items", (), {"page_size": "5"}, "page_size"),
    ("list_items", (), {"page_size": -1}, "page_size"),
    ("list_items", (), {"page_size": 1 << 40}, "page_size"),
    ("list_items", (), {"page_token": None}, "page_token"),
    ("list_items", (), {"min_watermark": "text"}, "min_watermark"),
    ("count_items", ("price <",), {}, "filter"),
    ("count_items", ({"field": "price"},), {}, "filter"),
    ("count_items", ({"any": [{"field": "a", "equals": {1}}]},), {}, "filter.any[0].equals"),
    ("count_items", (Unknown(),), {}, "filter"),
    ("count_items", (None, [5]), {}, "facets[0]"),
    ("upsert_items", (item(),), {}, "items"),
    ("upsert_items", ([{"id": "a", "titel": "x"}],), {}, "items[0]"),
    ("upsert_items", ([{"text": "a"}],), {}, "items[0]"),
    ("upsert_items", ([item(), item(id=1.5)],), {}, "items[1].id"),
    ("upsert_items", ([item(id=True)],), {}, "items[0].id"),
    ("upsert_items", ([item(title=3)],), {}, "items[0].title"),
    ("upsert_items", ([item(attributes=[1])],), {}, "items[0].attributes"),
    ("upsert_items", ([item(attributes={1: 2})],), {}, "items[0].attributes"),
    ("upsert_items", ([item(attributes={"p": NAN})],), {}, "items[0].attributes.p"),
    ("upsert_items", ([item(attributes={"p": np.float32(INF)})],), {}, "items[0].attributes.p"),
    ("upsert_items", ([item(attributes={"p": [1.0, NAN]})],), {}, "items[0].attributes.p[1]"),
    ("upsert_items", ([item(attributes={"p": Unknown()})],), {}, "items[0].attributes.p"),
    ("upsert_items", ([item(attributes={"p": [[1]]})],), {}, "items[0].attributes.p[0]"),
    ("upsert_items", ([item(attributes={"p": 1 << 64})],), {}, "items[0].attributes.p"),
    # Python refuses to write integers with so many digits.
    ("upsert_items", ([item(attributes={"p": 10**5_000})],), {}, "items[0].attributes.p"),
    ("upsert_items", ([item(id=10**5_000)],), {}, "items[0].id"),
    ("count_items", ({"field": "p", "equals": 10**5_000},), {}, "filter.equals.value"),
    ("count_items", (Equals("p", 10**5_000),), {}, "options.filter.equals.value"),
    ("search", ("x", 10**5_000), {}, "options"),
    (
        "upsert_items",
        ([item(attributes={"p": np.datetime64("NaT")})],),
        {},
        "items[0].attributes.p",
    ),
    ("upsert_items", ([item(vector=[NAN])],), {}, "items[0].vector[0]"),
    ("upsert_items", ([item(expires=NAN)],), {}, "items[0].expires"),
    ("upsert_items", ([item(expires="2026")],), {}, "items[0].expires"),
    ("upsert_items", ([item()],), {"lane": "slow"}, "lane"),
    ("upsert_items", ([item()],), {"if_versions": {"a": "1"}}, "if_versions.a"),
    ("upsert_items", ([item()],), {"as_of": {"a": 3}}, "as_of.a"),
    ("delete_items", ("abc",), {}, "ids"),
    ("recommend", (5.5,), {}, "audience"),
    ("recommend", ("u", c.RecommendOptions(diversity=NAN)), {}, "options.diversity"),
    ("recommend", ("u", c.RecommendOptions(payload={"titel"})), {}, "options.payload[0]"),
    ("record_interactions", ([c.Interaction(item_id=None)],), {}, "interactions[0].item_id"),  # type: ignore
    (
        "record_interactions",
        ([c.Interaction(item_id="a", weight=NAN)],),
        {},
        "interactions[0].weight",
    ),
    (
        "record_interactions",
        ([c.Interaction(item_id="a", time=1.5)],),  # type: ignore[arg-type]
        {},
        "interactions[0].time",
    ),
    (
        "record_interactions",
        ([c.Interaction(item_id="a", position=-1)],),
        {},
        "interactions[0].position",
    ),
    ("get_user", (None,), {}, "user_id"),
    *(
        ("search", ("x", c.SearchOptions(**{name: value})), {}, f"options.{path or name}")
        for name, value, path in OPTIONS
    ),
]


@pytest.mark.parametrize(
    ("method", "given", "more", "field"), REFUSED, ids=[f"{o[0]}-{o[3]}" for o in REFUSED]
)
async def test_a_wrong_argument_is_refused_by_name(
    method: str, given: tuple[Any, ...], more: dict[str, Any], field: str
) -> None:
    async with RetrievalClient(NOWHERE) as client:
        with pytest.raises(InvalidRequest) as raised:
            await getattr(client, method)(*given, **more)
    assert raised.value.field == field
    assert field in raised.value.message
    assert len(raised.value.message) < 500


async def test_other_clients_refuse_a_wrong_argument_by_name() -> None:
    question = c.Question(text="x", documents="5")  # type: ignore[arg-type]
    async with GenerationClient(NOWHERE) as client:
        with pytest.raises(InvalidRequest, match=r"question\.documents is '5'"):
            await anext(client.generate(question))
        with pytest.raises(InvalidRequest, match=r"question\.temperature is nan"):
            await anext(client.generate(c.Question(text="x", temperature=NAN)))
        with pytest.raises(InvalidRequest, match=r"question\.unsupported is 'hide'.*drop, mark"):
            await anext(client.generate(c.Question(text="x", unsupported="hide")))
    async with EmbeddingClient(NOWHERE) as embedder:
        with pytest.raises(InvalidRequest, match="texts is 'one'"):
            await embedder.embed("one")
        with pytest.raises(InvalidRequest, match=r"role is 'both'.*query, document"):
            await embedder.embed(["one"], "both")
    async with IngestClient(NOWHERE) as ingest:
        with pytest.raises(InvalidRequest, match=r"sources\[0\] is 'a.txt'"):
            await ingest.submit(["a.txt"])  # type: ignore[list-item]
        with pytest.raises(InvalidRequest, match=r"sources\[0\]\.content is 'x'"):
            await ingest.submit([c.SourceFile("a.txt", "x")])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"lane is 'slow'.*interactive, bulk"):
        RetrievalClient(NOWHERE, lane="slow")


async def test_a_batch_of_a_stream_is_refused_by_its_number() -> None:
    async def batches() -> AsyncIterator[list[c.Item]]:
        yield [item()]
        yield [item(), item(attributes={"p": NAN})]

    service = RecordingService(FullRecords(), *PROTOCOLS)
    async with joined(RETRIEVAL, service) as (client, _):
        with pytest.raises(InvalidRequest) as raised:
            await client.upsert_batches(batches())
    assert raised.value.field == "batches[1][1].attributes.p"


async def test_strings_stand_for_enums_and_sets_of_them() -> None:
    found = await options_received(mode="dense", level="chunk", payload=["title", "text"])
    assert found.mode is c.SearchMode.DENSE
    assert found.level is c.HitLevel.CHUNK
    assert found.payload == {TITLE, TEXT}
    assert (await options_received(payload={"vector", TITLE})).payload == {
        c.PayloadField.VECTOR,
        TITLE,
    }
    assert (await received(RETRIEVAL, "get_items", ["a"], {"title"}))["payload"] == {TITLE}
    assert (await received(RETRIEVAL, "upsert_items", [item()], lane="bulk"))["lane"] is c.Lane.BULK
    assert (await received(EMBEDDING, "embed", ["a"], "query"))["role"] is c.TextRole.QUERY
    submitted = await received(INGEST, "submit", [item()], priority="high")
    assert submitted["priority"] is c.JobPriority.HIGH
    await RetrievalClient(NOWHERE, lane="bulk").close()


async def test_filters_are_records_texts_or_dicts() -> None:
    wanted = All(Range("price", lt=80), In("brand", ("acme",)))
    for given in (
        wanted,
        "price < 80 AND brand IN [acme]",
        {"all": [{"field": "price", "lt": 80}, {"field": "brand", "in": ["acme"]}]},
    ):
        assert (await options_received(filter=given)).filter == wanted
        assert (await received(RETRIEVAL, "list_items", filter=given))["filter"] == wanted
    question = c.Question(text="why?", filter="price < 80", mode="lexical", unsupported="mark")
    found = (await received(GENERATION, "generate", question))["question"]
    assert found.filter == Range("price", lt=80)
    assert (found.mode, found.unsupported) == (c.SearchMode.LEXICAL, c.Unsupported.MARK)
    year: Any = np.int64(5)
    prices: Any = (np.float32(0.5),)
    numbers = Not(AnyOf(Equals("year", year), In("price", prices)))
    assert (await options_received(filter=numbers)).filter == Not(
        AnyOf(Equals("year", 5), In("price", (0.5,)))
    )


async def test_a_text_stands_for_a_query_a_question_a_facet_and_a_user() -> None:
    assert (await received(RETRIEVAL, "search", "red shoes"))["query"] == c.Query(text="red shoes")
    batch = await received(RETRIEVAL, "search_batch", ["a", c.Query(text="b")])
    assert batch["queries"] == [c.Query(text="a"), c.Query(text="b")]
    assert (await received(GENERATION, "generate", "why?"))["question"].text == "why?"
    counted = await received(RETRIEVAL, "count_items", None, ["brand"])
    assert counted["facets"] == [c.Facet(field="brand")]
    assert (await options_received(grouping="brand")).grouping == c.Grouping("brand")
    audience = (await received(RETRIEVAL, "recommend", "u1"))["audience"]
    assert audience == c.Audience(user_id="u1")


async def test_a_dict_stands_for_a_record() -> None:
    rows = [{"id": 7, "text": "red", "attributes": {"price": np.float32(0.5)}}]
    sent = await received(RETRIEVAL, "upsert_items", rows)
    assert sent["items"] == [c.Item(id="7", text="red", attributes={"price": 0.5})]
    options = (await received(RETRIEVAL, "search", {"text": "x"}, {"k": 3, "mode": "dense"}))[
        "options"
    ]
    assert (options.k, options.mode) == (3, c.SearchMode.DENSE)


@pytest.mark.parametrize(
    "vector",
    [
        [1, 0.5],
        (1.0, 0.5),
        np.array([1, 0.5]),
        np.array([1, 0.5], np.float16),
        np.array([1, 9, 0.5, 9], np.float32)[::2],
        [np.float64(1), np.float32(0.5)],
        np.array([[1, 0.5]], np.float32),
    ],
)
async def test_vectors_are_lists_tuples_or_arrays(vector: Any) -> None:
    query = (await received(RETRIEVAL, "search", c.Query(vector=vector)))["query"]
    assert query.vector.dtype == np.float32
    assert query.vector.tolist() == [1.0, 0.5]
    items = (await received(RETRIEVAL, "upsert_items", [item(vector=vector)]))["items"]
    assert items[0].vector.tolist() == [1.0, 0.5]


async def test_numpy_values_are_ids_and_attributes() -> None:
    attributes: dict[str, Any] = {
        "n": np.int64(3),
        "x": np.float32(0.5),
        "b": np.bool_(True),
        "s": np.str_("t"),
        "t": np.datetime64("2026-05-01T00:00:00"),
        "many": np.array([1, 2]),
        "tags": ["a", np.str_("b")],
        "none": None,
    }
    given = item(id=np.int64(42), attributes=attributes)
    [found] = (await received(RETRIEVAL, "upsert_items", [given]))["items"]
    assert found.id == "42"
    assert found.attributes == {
        "n": 3,
        "x": 0.5,
        "b": True,
        "s": "t",
        "t": WHEN,
        "many": [1, 2],
        "tags": ["a", "b"],
        "none": None,
    }
    assert type(found.attributes["b"]) is bool
    ids = (await received(RETRIEVAL, "get_items", np.array([1, 2])))["ids"]
    assert list(ids) == ["1", "2"]
    assert (await received(RETRIEVAL, "get_user", 7))["user_id"] == "7"
    one = c.Interaction(item_id=np.int64(3), position=np.int64(4), weight=np.float32(0.5))  # type: ignore[arg-type]
    [sent] = (await received(RETRIEVAL, "record_interactions", [one]))["interactions"]
    assert (sent.item_id, sent.position, sent.weight) == ("3", 4, 0.5)
    assert (await options_received(k=np.int64(7))).k == 7


async def test_searches_return_titles_and_texts_unless_told_otherwise() -> None:
    plain = (await received(RETRIEVAL, "search", "x"))["options"]
    assert plain.payload == {TITLE, TEXT}
    assert (await options_received(k=3)).payload == {TITLE, TEXT}
    assert (await options_received(payload=())).payload == frozenset()
    assert (await options_received(payload=frozenset())).payload == frozenset()
    assert (await options_received(payload={"title"})).payload == {TITLE}
    for given in ((), (c.RecommendOptions(n=3),)):
        listed = (await received(RETRIEVAL, "recommend", "u", *given))["options"]
        assert listed.payload == {TITLE, TEXT}
    bare = (await received(RETRIEVAL, "recommend", "u", c.RecommendOptions(payload=())))["options"]
    assert bare.payload == frozenset()


def test_blocking_clients_convert_alike() -> None:
    with BlockingRetrievalClient(NOWHERE, lane="bulk") as client:
        with pytest.raises(InvalidRequest, match=r"options\.mode is 'densest'.*dense, lexical"):
            client.search("red shoes", c.SearchOptions(mode="densest"))
        with pytest.raises(InvalidRequest, match=r"items\[0\]\.attributes\.p is nan"):
            client.upsert_items([item(attributes={"p": NAN})])


def test_records_that_are_right_are_sent_as_they_are() -> None:
    items = [item(attributes={"p": 1.5, "tags": ["a"]}, vector=np.ones(2, np.float32))]
    assert converter(Sequence[c.Item], "items")(items) is items
