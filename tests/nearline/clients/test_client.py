"""One client for all services: what its methods send, and what it takes and refuses."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearline import AsyncClient, Client, contract as c
from nearline.errors import InvalidRequest
from nearline.settings import ServerSettings
from nearline.tls import TlsFiles
from nearline.v1 import (
    admin_pb2,
    embedding_pb2,
    generation_pb2,
    ingest_pb2,
    retrieval_pb2,
    types_pb2,
)
from nearline_cli.local.certificates import CertificateAuthority
from tests.gateway.gateways import Behind, services_of

NOWHERE = "127.0.0.1:1"
NAN, INF = math.nan, math.inf
LIVE = types_pb2.ServedBy(source=types_pb2.ServedBy.SOURCE_LIVE)
INFO = types_pb2.ReplyInfo(epoch=1, snapshot_id="s", served_by=LIVE)
JOB = ingest_pb2.Job(job_id="j", collection="shop", state=ingest_pb2.JOB_STATE_QUEUED)


def answering() -> Behind:
    """Returns services that answer with nothing."""
    behind = Behind()
    answers: dict[str, Any] = {
        "Search": retrieval_pb2.SearchResponse(info=INFO),
        "SearchBatch": retrieval_pb2.SearchBatchResponse(info=INFO),
        "Recommend": retrieval_pb2.RecommendResponse(info=INFO),
        "GetItems": retrieval_pb2.GetItemsResponse(info=INFO),
        "ListItems": retrieval_pb2.ListItemsResponse(info=INFO),
        "CountItems": retrieval_pb2.CountItemsResponse(info=INFO),
        "UpsertItems": retrieval_pb2.UpsertItemsResponse(),
        "DeleteItems": retrieval_pb2.DeleteItemsResponse(),
        "RecordInteractions": retrieval_pb2.RecordInteractionsResponse(recorded=1),
        "GetUser": retrieval_pb2.GetUserResponse(),
        "DeleteUser": retrieval_pb2.DeleteUserResponse(),
        "Generate": [
            generation_pb2.GenerateResponse(evidence=generation_pb2.EvidenceEvent(info=INFO)),
            generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="Three ")),
            generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="days. [1]")),
            generation_pb2.GenerateResponse(
                citation=generation_pb2.Citation(number=1, document_id="a", char_end=5)
            ),
            generation_pb2.GenerateResponse(usage=generation_pb2.UsageEvent(total_s=0.5)),
            generation_pb2.GenerateResponse(
                done=generation_pb2.DoneEvent(
                    tokens=3,
                    finish=generation_pb2.DoneEvent.FINISH_COMPLETE,
                    served_by=LIVE,
                )
            ),
        ],
        "VerifyCitation": generation_pb2.VerifyCitationResponse(info=INFO),
        "Embed": embedding_pb2.EmbedResponse(),
        "Rerank": embedding_pb2.RerankResponse(scores=[0.5]),
        "Submit": ingest_pb2.SubmitResponse(job=JOB),
        "GetJob": ingest_pb2.GetJobResponse(job=JOB),
        "WatchJob": [ingest_pb2.WatchJobResponse(job=JOB)],
        "GetServingStatus": admin_pb2.GetServingStatusResponse(),
    }
    for name, reply in answers.items():
        behind.answers[name] = partial(_reply, reply)
    return behind


@contextlib.asynccontextmanager
async def joined(**options: Any) -> AsyncIterator[tuple[AsyncClient, Behind]]:
    """Gives a client, and all services behind its one address."""
    behind = answering()
    async with services_of(behind) as address, AsyncClient(address, **options) as client:
        yield client, behind


def _reply(reply: Any, request: object) -> Any:
    return reply


def payload_of(request: Any) -> set[str]:
    names = map(retrieval_pb2.PayloadField.Name, request.payload)
    return {name.removeprefix("PAYLOAD_FIELD_").lower() for name in names}


async def test_every_service_is_asked_at_one_address_about_the_collection_of_the_client() -> None:
    interaction = c.Interaction(item_id="a", user_id="u")
    async with joined(collection="shop") as (client, behind):
        citation = (await client.ask("how long?")).citations[0]
        for call in (
            client.search("red"),
            client.search_batch(["red", "blue"]),
            client.recommend("u"),
            client.get(["a"]),
            client.count(),
            client.upsert([c.Item(id="a", text="x")]),
            client.delete(["a"]),
            client.record([interaction]),
            client.user("u"),
            client.delete_user("u"),
            client.verify([citation]),
            client.submit([c.SourceFile("a.md", b"x")]),
        ):
            await call
        assert [one async for one in client.items()] == []
        assert {request.collection for _, request in behind.seen} == {"shop"}
        await client.count(collection="other")
        assert behind.request.collection == "other"
        assert (await client.job("j")).job_id == (await client.wait("j")).job_id == "j"
        assert await client.rerank("red", ["x"]) == [0.5]
        assert await client.status() == admin_pb2.GetServingStatusResponse()
        assert len({name for name, _ in behind.seen}) == 18


async def test_titles_and_texts_come_back_unless_told_otherwise() -> None:
    async with joined() as (client, behind):
        await client.search("red")
        assert payload_of(behind.request.options) == {"title", "text"}
        await client.search("red", payload=())
        assert payload_of(behind.request.options) == set()
        await client.search("red", payload={"title"}, options=c.SearchOptions(explain=True))
        assert payload_of(behind.request.options) == {"title"}
        assert behind.request.options.explain
        await client.recommend("u", options=c.RecommendOptions(explain=True))
        assert payload_of(behind.request) == {"title", "text"}
        await client.recommend("u", payload=["attributes"])
        assert payload_of(behind.request) == {"attributes"}
        await client.get(["a"])
        assert payload_of(behind.request) == {"title", "text", "attributes"}
        assert [one async for one in client.items()] == []
        assert payload_of(behind.request) == {"title", "text", "attributes"}


async def test_what_is_named_counts_more_than_options() -> None:
    async with joined() as (client, behind):
        options = c.SearchOptions(k=7, mode="dense", filter="price < 5", min_score=0.5)
        await client.search("red", options=options)
        sent = behind.request.options
        assert (sent.k, sent.mode) == (7, retrieval_pb2.SEARCH_MODE_DENSE)
        await client.search(
            "red", 3, mode="lexical", filter={"field": "a", "equals": 1}, options=options
        )
        sent = behind.request.options
        assert (sent.k, sent.mode, sent.min_score) == (3, retrieval_pb2.SEARCH_MODE_LEXICAL, 0.5)
        assert sent.filter.equals.field == "a"
        await client.recommend(7, 4, item_ids=[1, np.int64(2)], surface="item", filter="a = 1")
        sent = behind.request
        assert (sent.user_id, sent.n, sent.surface) == ("7", 4, "item")
        assert list(sent.item_ids) == ["1", "2"]


@pytest.mark.parametrize("vector", [[1, 0.5], (1.0, 0.5), np.array([1, 0.5])])
async def test_numbers_are_a_query(vector: Any) -> None:
    async with joined() as (client, behind):
        await client.search(vector)
        assert np.frombuffer(behind.request.query.vector.data, "<f4").tolist() == [1.0, 0.5]
        await client.search_batch([vector, "red"])
        kinds = [query.WhichOneof("kind") for query in behind.request.queries]
        assert kinds == ["vector", "text"]


async def test_an_answer_is_whole_and_reads_as_its_text() -> None:
    async with joined() as (client, behind):
        answer = await client.ask("how long?", session_id="talk", filter="a = 1", backend="small")
        assert str(answer) == answer.text == "Three days. [1]"
        assert [one.document_id for one in answer.citations] == ["a"]
        assert answer.refusal is None and answer.done is not None and answer.usage.total_s == 0.5
        sent = behind.request
        assert (sent.session_id, sent.backend, sent.filter.equals.field) == ("talk", "small", "a")
        kinds = [type(one) async for one in client.ask_stream("how long?")]
        assert kinds == [c.Evidence, c.Delta, c.Delta, c.Citation, c.Usage, c.Done]
        refusal = generation_pb2.RefusalEvent(
            reason=generation_pb2.RefusalEvent.REASON_OFF_TOPIC, message="About other things."
        )
        behind.answers["Generate"] = lambda _: [
            generation_pb2.GenerateResponse(evidence=generation_pb2.EvidenceEvent(info=INFO)),
            generation_pb2.GenerateResponse(refusal=refusal),
        ]
        refused = await client.ask("who?")
        assert refused.refusal is not None and refused.done is None
        assert (refused.text, str(refused)) == ("", "About other things.")


async def test_what_may_be_no_answer_is_told_apart_from_an_answer() -> None:
    async with joined() as (client, behind):
        assert not (await client.ask("how long?")).not_sure
        assert behind.request.strictness == generation_pb2.STRICTNESS_UNSPECIFIED
        text = "Your documents may not answer this. The closest passages:\n\nThree days. [1]"
        done = generation_pb2.DoneEvent(not_sure=True, finish=1, served_by=LIVE)  # type: ignore[arg-type]
        behind.answers["Generate"] = lambda _: [
            generation_pb2.GenerateResponse(evidence=generation_pb2.EvidenceEvent(info=INFO)),
            generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text=text)),
            generation_pb2.GenerateResponse(done=done),
        ]
        shown = await client.ask("how long?", strictness="strict")
        assert behind.request.strictness == generation_pb2.STRICTNESS_STRICT
        assert shown.not_sure and shown.refusal is None and str(shown) == text
        with pytest.raises(InvalidRequest, match="strictness"):
            await client.ask("how long?", strictness="harsh")


async def test_answers_and_checks_include_own_writes() -> None:
    async with joined() as (client, behind):
        citation = (await client.ask("how long?")).citations[0]
        assert behind.request.min_watermark == b""
        behind.answers["UpsertItems"] = lambda _: retrieval_pb2.UpsertItemsResponse(watermark=b"w")
        await client.upsert([c.Item(id="a", text="x")])
        await client.ask("how long?")
        assert behind.request.min_watermark == b"w"
        await client.verify([citation])
        assert behind.request.min_watermark == b"w"
        await client.ask(c.Question(text="how long?", min_watermark=b"own"))
        assert behind.request.min_watermark == b"own"


async def test_collections_are_made_listed_described_and_dropped() -> None:
    made = admin_pb2.Collection(name="shop")
    async with joined() as (client, behind):
        behind.answers |= {
            "CreateCollection": lambda _: admin_pb2.CreateCollectionResponse(collection=made),
            "ListCollections": lambda _: admin_pb2.ListCollectionsResponse(collections=[made]),
            "GetCollection": lambda _: admin_pb2.GetCollectionResponse(collection=made),
            "DropCollection": lambda _: admin_pb2.DropCollectionResponse(),
        }
        assert await client.collections.create("shop", attributes={"price": "double"}) == made
        assert behind.request.attributes[0].name == "price"
        assert await client.collections.list() == [made]
        assert await client.collections.get("shop") == made
        await client.collections.drop("shop")
        assert behind.request.collection == "shop"
        for call in (client.collections.create(5), client.collections.drop(None)):  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match=r"^collection is"):
                await call


async def test_a_job_that_was_waited_for_is_an_own_write() -> None:
    async with joined() as (client, behind):
        job = ingest_pb2.Job(
            job_id="j",
            collection="shop",
            state=ingest_pb2.JOB_STATE_SUCCEEDED,
            watermark=b"w",
        )
        behind.answers["WatchJob"] = lambda _: [ingest_pb2.WatchJobResponse(job=job)]
        await client.wait("j")
        await client.count(collection="shop")
        assert behind.request.min_watermark == b"w"
        await client.count()
        assert behind.request.min_watermark == b""


REFUSED: Sequence[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("search", (5,), {}, "query"),
    ("search", ([0.1, NAN],), {}, "query.vector[1]"),
    ("search", (["a", "b"],), {}, "query.vector"),
    ("search", ("x", "5"), {}, "k"),
    ("search", ("x",), {"mode": "densest"}, "mode"),
    ("search", ("x",), {"filter": "price <"}, "filter"),
    ("search", ("x",), {"payload": ["titel"]}, "payload[0]"),
    ("search", ("x",), {"options": {"kk": 3}}, "options"),
    ("search", ("x",), {"options": c.SearchOptions(min_score=INF)}, "options.min_score"),
    ("search", ("x",), {"collection": 5}, "collection"),
    ("search", ("x",), {"timeout_s": "5"}, "timeout_s"),
    ("search_batch", ("one text",), {}, "queries"),
    ("search_batch", ([0.5, 0.1],), {}, "queries[0]"),
    ("recommend", (1.5,), {}, "user_id"),
    ("recommend", ("u", 2.5), {}, "n"),
    ("recommend", (), {"item_ids": "abc"}, "item_ids"),
    ("recommend", (), {"options": c.RecommendOptions(diversity=NAN)}, "options.diversity"),
    ("upsert", (c.Item(id="a"),), {}, "items"),
    ("upsert", ([c.Item(id="a", attributes={"p": [1.0, NAN]})],), {}, "items[0].attributes.p[1]"),
    ("upsert", ([c.Item(id="a", vector=[INF])],), {}, "items[0].vector[0]"),
    ("delete", ("abc",), {}, "ids"),
    ("get", (["a", 1.5],), {}, "ids[1]"),
    ("get", (["a"],), {"min_watermark": "text"}, "min_watermark"),
    ("count", (5,), {}, "filter"),
    ("count", (None, [5]), {}, "facets[0]"),
    ("record", ([c.Interaction(item_id="a", weight=NAN)],), {}, "interactions[0].weight"),
    ("user", (None,), {}, "user_id"),
    ("ask", (5,), {}, "question"),
    ("ask", (c.Question(text="x", temperature=NAN),), {}, "question.temperature"),
    ("ask", ("x",), {"filter": "price <"}, "filter"),
    ("verify", (["x"],), {}, "citations[0]"),
    ("embed", ("one",), {}, "texts"),
    ("embed", (["one"], "both"), {}, "role"),
    ("rerank", ("x", "one"), {}, "texts"),
    ("submit", (["a.txt"],), {}, "sources[0]"),
    ("submit", ([c.SourceUrl("x")],), {"priority": "urgent"}, "priority"),
    ("wait", ("j",), {"timeout_s": NAN}, "timeout_s"),
]


@pytest.mark.parametrize(
    ("method", "given", "more", "field"), REFUSED, ids=[f"{o[0]}-{o[3]}" for o in REFUSED]
)
async def test_a_wrong_argument_is_refused_by_its_name(
    method: str, given: tuple[Any, ...], more: dict[str, Any], field: str
) -> None:
    async with AsyncClient(NOWHERE) as client:
        with pytest.raises(InvalidRequest) as raised:
            await getattr(client, method)(*given, **more)
    assert raised.value.field == field
    assert raised.value.message.startswith(field)


async def test_a_wrong_setting_is_refused_where_the_client_is_made() -> None:
    for options, field in (
        ({"lane": "slow"}, "lane"),
        ({"collection": 5}, "collection"),
        ({"own_writes": "no"}, "own_writes"),
        ({"tls": "ca.pem"}, "tls"),
        ({"ingest": 7704}, "ingest"),
    ):
        with pytest.raises(InvalidRequest) as raised:
            AsyncClient(NOWHERE, **options)
        assert raised.value.field == field
    with pytest.raises(InvalidRequest, match="printable ASCII"):
        Client(NOWHERE, token="café")


async def test_a_wrong_argument_starts_no_services() -> None:
    for wrong in (
        {"path": 5},
        {"collection": 5},
        {"attributes": ["price"]},
        {"own_writes": 1},
        {"timeout_s": "5"},
    ):
        (name,) = wrong
        with pytest.raises(InvalidRequest) as raised:
            await AsyncClient.embedded(**{"path": "/nowhere", **wrong})  # type: ignore[arg-type]
        assert raised.value.field == name


async def test_every_service_gets_the_token_over_tls(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate, key = map(str, authority.issue("server", ["127.0.0.1"]))
    settings = ServerSettings.load({"tls_cert": certificate, "tls_key": key})
    behind = answering()
    async with services_of(behind, settings) as address:
        files = TlsFiles(authorities=str(authority.file))
        async with AsyncClient(address, token="secret", tls=files) as client:
            for call in (
                client.search("red"),
                client.ask("how long?"),
                client.job("j"),
                client.rerank("red", ["x"]),
                client.status(),
            ):
                behind.metadata = {}
                await call
                assert behind.metadata["authorization"] == "Bearer secret"


async def test_services_with_addresses_of_their_own_are_asked_there() -> None:
    async with AsyncClient(NOWHERE, generation="127.0.0.1:2", ingest="127.0.0.1:3") as client:
        assert client.retrieval.address == client.admin.address == NOWHERE
        assert client.embedding.address == NOWHERE
        assert client.generation.address == "127.0.0.1:2"
        assert client.ingest.address == "127.0.0.1:3"


async def test_a_closed_client_says_so() -> None:
    async with AsyncClient(NOWHERE) as client:
        pass
    for call in (client.search("x"), client.ask("x"), client.job("j")):
        with pytest.raises(InvalidRequest, match="is closed; make another one"):
            await call


def test_parts_of_a_blocking_client_share_its_connections() -> None:
    with Client(NOWHERE, lane="bulk") as client:
        assert client.generation._client is client._client.generation
        assert client.ingest._client is client.ingest._client
        for part in (client.retrieval, client.embedding, client.admin):
            assert part._client.address == NOWHERE
