"""What arrives at `/mcp` is passed on, bounded and checked; what is wrong is refused in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from gateway.mcp import service_calls
from gateway.mcp.tool_server import make_tool_server
from gateway.upstream import CallContext, Upstream
from nearline import errors
from nearline.v1 import generation_pb2, retrieval_pb2
from tests.gateway.gateways import Behind, gateway
from tests.waits import until

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
Served = tuple[httpx2.AsyncClient, Behind]
ACCEPTS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
ORIGIN = "https://shop.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="running")
async def give_running() -> AsyncIterator[Served]:
    async with gateway(max_body_bytes=64 << 10, allow_origins=ORIGIN) as served:
        yield served


@pytest.fixture(name="served")
def give_served(running: Served) -> Served:
    running[1].seen.clear()
    running[1].answers.clear()
    running[1].go.set()
    running[1].answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
    return running


def call(name: str, arguments: object) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


def connected(served: Served, mode: str = "auto") -> Client:
    return Client(streamable_http_client("/mcp", http_client=served[0]), mode=mode)


def problem(result: CallToolResult) -> dict[str, Any]:
    (text,) = result.content
    assert isinstance(text, TextContent) and result.is_error, result
    found: dict[str, Any] = json.loads(text.text)
    return found


async def test_headers_say_who_asks_and_how_long_it_may_take(served: Served) -> None:
    client, behind = served
    for given, sent in (
        ({"authorization": "Bearer k1"}, "Bearer k1"),
        ({"x-api-key": "k2"}, "Bearer k2"),
    ):
        # There is no session: the first request may be any.
        found = await client.post(
            "/mcp",
            json=call("search", {"query": "x"}),
            headers={**ACCEPTS, **given, "nearline-timeout": "2.5", "x-request-id": "r1"},
        )
        assert found.status_code == 200 and found.headers["x-request-id"] == "r1"
        assert found.headers["content-type"] == "application/json"
        assert found.json()["result"]["structuredContent"]["hits"] == []
        assert behind.metadata["authorization"] == sent
        assert behind.metadata["x-request-id"] == "r1"
        assert behind.left_s is not None and 1.5 < behind.left_s < 2.6
    assert "mcp-session-id" not in found.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:7706"}, 200),
        ({"host": "[::1]:7706"}, 200),
        ({"host": "shop.example", "origin": ORIGIN}, 200),
        ({"origin": ORIGIN}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        # A name of an attacker that stands for 127.0.0.1 by now.
        ({"host": "evil.example:7706", "origin": "http://evil.example:7706"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
    ],
)
async def test_pages_of_other_origins_may_not_call(
    served: Served, headers: dict[str, str], status: int
) -> None:
    client, behind = served
    body = call("search", {"query": "x"})
    found = await client.post("/mcp", json=body, headers={**ACCEPTS, **headers})
    assert (found.status_code, len(behind.seen)) == (status, int(status == 200)), found.text
    if status != 200:
        assert "--allow-origins" in found.json()["detail"]


async def test_pages_of_an_allowed_origin_may_send_the_headers_of_the_protocol(
    served: Served,
) -> None:
    asked = "authorization,content-type,mcp-method,mcp-name,mcp-protocol-version"
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    found = await served[0].options("/mcp", headers=headers)
    assert found.status_code == 200, found.text


async def test_only_post_is_served(served: Served) -> None:
    for verb in ("GET", "DELETE", "PUT"):
        found = await served[0].request(verb, "/mcp", headers=ACCEPTS)
        assert (found.status_code, found.headers["allow"]) == (405, "OPTIONS, POST")


async def test_what_may_be_no_answer_is_no_answer_of_the_tool(served: Served) -> None:
    client, behind = served
    event = generation_pb2.GenerateResponse
    text = "Your documents may not answer this. The closest passages:\n\nIt boils. [1]"
    behind.answers["Generate"] = lambda request: [
        event(evidence=generation_pb2.EvidenceEvent()),
        event(delta=generation_pb2.DeltaEvent(text=text)),
        event(citation=generation_pb2.Citation(number=1, document_id="kettle")),
        event(done=generation_pb2.DoneEvent(not_sure=True, evidence_probability=0.25)),
    ]
    asked = {"question": "How hot?", "strictness": "strict"}
    found = await client.post("/mcp", json=call("ask", asked), headers=ACCEPTS)
    result = found.json()["result"]["structuredContent"]
    assert behind.request.strictness == generation_pb2.STRICTNESS_STRICT
    assert (result["answered"], result["not_sure"], result["answer"]) == (False, True, "")
    assert result["closest_passages"] == text and "refusal" not in result
    assert [one["document_id"] for one in result["citations"]] == ["kettle"]
    await client.post("/mcp", json=call("ask", {"question": "How hot?"}), headers=ACCEPTS)
    assert behind.request.strictness == generation_pb2.STRICTNESS_UNSPECIFIED


DEEP = b"[" * 20_000
RAW = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    DEEP,
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ' + DEEP,
    b'{"jsonrpc": "1.0", "id": 1, "method": "tools/list"}',
    b'{"jsonrpc": "2.0", "id": {}, "method": "tools/list"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": 3}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "no/such"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "\\ud800"}}',
    b'{"jsonrpc": "2.0", "id": 1, "result": {}}',
    b'{"jsonrpc": "2.0", "id": 1e400, "method": "tools/list"}',
]


@pytest.mark.parametrize("version", ["", "2025-06-18", "2026-07-28", "9999-99-99"])
async def test_a_body_that_is_no_call_is_refused(served: Served, version: str) -> None:
    client, behind = served
    headers = {**ACCEPTS, **({"mcp-protocol-version": version} if version else {})}
    for body in RAW:
        found = await client.post("/mcp", content=body, headers=headers)
        assert found.status_code in (200, 202, 400, 404), (body[:80], found.status_code)
        if found.status_code == 200:
            assert "error" in found.json(), body[:80]
        assert len(found.content) < 2_000
    found = await client.post("/mcp", content=b"x" * (65 << 10), headers=headers)
    assert found.status_code == 413 and "65,536 are allowed" in found.json()["detail"]
    found = await client.post("/mcp", content=b"{}", headers={**headers, "content-type": "text/x"})
    assert 400 <= found.status_code < 500
    assert behind.seen == []


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("search", {}, "query: field required"),
        ("search", {"query": ""}, "query: "),
        ("search", {"query": "x" * 40_000}, "query: "),
        ("search", {"query": ["x"]}, "query: "),
        ("search", {"query": "x", "k": 51}, "k: "),
        ("search", {"query": "x", "k": "many"}, "k: "),
        ("search", {"query": "x", "k": 1.5}, "k: "),
        ("search", {"query": "x", "mode": "magic"}, "mode: "),
        ("search", {"query": "x", "limit": 3}, "no argument 'limit'; known are collection, query"),
        ("search", {"query": "x", "filter": "(" * 5_000}, "filter"),
        ("search", {str(number): 0 for number in range(1_000)}, "1,000 arguments"),
        ("search", {"query": "x", "collection": "x" * 100}, "collection: "),
        ("recommend", {"item_ids": ["x"] * 257}, "item_ids: "),
        ("recommend", {"item_ids": [1] * 10_000}, "item_ids"),
        ("get_item", {"item_id": "x", "start": -1}, "start: "),
        ("verify_citation", {"citations": []}, "citations: "),
        (
            "verify_citation",
            {"citations": [{"document_id": "x", "char_start": 1 << 80, "char_end": 1}]},
            "citations.0.char_start: ",
        ),
        ("remember", {"item_id": "x", "attributes": {"a": {"b": 1}}}, "attributes.a"),
        ("remember", {"item_id": "x", "attributes": {"a": [[[1]]]}}, "flat list"),
        ("remember", {"item_id": "x", "attributes": {"a": 1 << 70}}, "a"),
        ("remember", {"item_id": "x", "attributes": 3}, "attributes: "),
        ("remember", {"item_id": "x", "expire_time": "soon"}, "expire_time"),
        *(
            ("remember", {"item_id": "x", **times}, "a time of the years 1 to 9999, such as 2024")
            for time in (
                "soon",
                "0000-01-01",
                "10000-01-01",
                "9999-12-31T23:59:59-14:00",
                1714564800,
            )
            for times in (
                {"expire_time": str(time)},
                {"attributes": {"at": {"$time": time}}},
                {"attributes": {"at": [{"$time": time}]}},
            )
        ),
        ("forget", {"item_id": "x", "user_id": "y"}, "not both"),
    ],
)
async def test_a_wrong_argument_is_named(
    served: Served, tool: str, arguments: dict[str, Any], says: str
) -> None:
    async with connected(served) as client:
        found = problem(await client.call_tool(tool, arguments))
    assert (found["reason"], found["status"]) == ("INVALID_REQUEST", 400)
    assert says in found["detail"] and len(found["detail"]) < 600, found
    assert served[1].seen == []


async def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol(served: Served) -> None:
    async with connected(served) as client:
        with pytest.raises(
            MCPError, match="known are list_collections, search, recommend, why_not"
        ):
            await client.call_tool("drop_table", {})


async def test_an_error_of_a_service_says_when_to_try_again(served: Served) -> None:
    def fail(request: object) -> None:
        raise errors.Overloaded("too many; try again", retry_after_s=1.5)

    served[1].answers["Search"] = fail
    async with connected(served) as client:
        found = problem(await client.call_tool("search", {"query": "x"}))
    assert (found["reason"], found["retry_after_s"]) == ("OVERLOADED", 1.5)


async def test_an_unexpected_error_tells_its_id_and_no_more(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(service_calls, "encode", fail)
    async with connected(served) as client:
        found = problem(await client.call_tool("search", {"query": "x"}))
    assert found["reason"] == "INTERNAL" and "secret" not in str(found)
    assert found["request_id"] in found["detail"]
    assert any(record.__dict__.get("tool") == "search" for record in caplog.records)


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
async def test_a_call_whose_client_has_gone_is_cancelled(served: Served, version: str) -> None:
    behind = served[1]
    behind.go.clear()
    behind.cancelled.clear()
    async with connected(served, "legacy" if version < "2026" else version) as agent:
        waiting = asyncio.create_task(agent.call_tool("search", {"query": "x"}))
        while not behind.seen:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    await until(lambda: behind.cancelled == ["Search"])


async def test_long_texts_come_in_parts(served: Served) -> None:
    behind = served[1]
    item = retrieval_pb2.Item(id="a", title="A", text="0123456789" * 10_000)
    behind.answers["GetItems"] = lambda request: retrieval_pb2.GetItemsResponse(items=[item])
    hit = retrieval_pb2.Hit(id="a", text=item.text, start=5, end=100_005)
    reply = retrieval_pb2.SearchResponse(result=retrieval_pb2.HitList(hits=[hit]))
    reply.info.coverage.shards_total = 1
    behind.answers["Search"] = lambda request: reply
    async with connected(served) as agent:
        found: Any = (await agent.call_tool("search", {"query": "x"})).structured_content
        assert (found["hits"][0]["start"], found["hits"][0]["end"]) == (5, 8_005)
        assert len(found["hits"][0]["text"]) == 8_000 and not found["complete"]
        # A whole document is shown by the passage with most of the query.
        passage: dict[str, Any] = {"start": 7_005, "end": 7_010, "text": "01234"}
        hit.highlights.passage.CopyFrom(retrieval_pb2.Passage(**passage))
        reply.result.hits[0].CopyFrom(hit)
        found = (await agent.call_tool("search", {"query": "x"})).structured_content
        assert {name: found["hits"][0][name] for name in passage} == passage
        read, start = "", 0
        while start < 100_000:
            arguments = {"item_id": "a", "start": start}
            part: Any = (await agent.call_tool("get_item", arguments)).structured_content
            assert (part["start"], part["text_length"]) == (start, 100_000)
            read, start = read + part["text"], part["end"]
        assert read == item.text and len(behind.seen) == 5
        past: Any = (
            await agent.call_tool("get_item", {"item_id": "a", "start": 200_000})
        ).structured_content
        assert (past["text"], past["start"], past["end"]) == ("", 100_000, 100_000)


async def test_a_write_says_whether_it_is_seen_and_why_it_was_rejected(served: Served) -> None:
    behind = served[1]
    result = retrieval_pb2.WriteResult(id="a", outcome="OUTCOME_APPLIED", version=3)
    reply = retrieval_pb2.UpsertItemsResponse(watermark=b"w", results=[result])
    behind.answers["UpsertItems"] = lambda request: reply

    def late(request: Any) -> None:
        assert request.min_watermark == b"w"
        raise errors.NotApplied("not yet")

    behind.answers["GetItems"] = late
    arguments = {"item_id": "a", "text": "x", "attributes": {"n": 1}, "only_attributes": True}
    async with connected(served) as agent:
        found: Any = (await agent.call_tool("remember", arguments)).structured_content
        assert found == {"id": "a", "outcome": "applied", "version": 3, "visible": False}
        sent = behind.seen[0][1]
        assert sent.only_attributes and sent.items[0].attributes["n"].int_value == 1
        reply.results[0].outcome = retrieval_pb2.WriteResult.OUTCOME_REJECTED
        reply.results[0].reason, reply.results[0].message = "CONFLICT", "it was changed"
        rejected = problem(await agent.call_tool("remember", arguments))
    assert (rejected["reason"], rejected["detail"]) == ("CONFLICT", "it was changed")


async def test_a_write_is_awaited_in_its_own_collection(served: Served) -> None:
    behind = served[1]
    result = retrieval_pb2.WriteResult(id="a", outcome="OUTCOME_APPLIED", version=3)
    reply = retrieval_pb2.UpsertItemsResponse(watermark=b"w", results=[result])
    behind.answers["UpsertItems"] = lambda request: reply
    behind.answers["GetItems"] = lambda request: retrieval_pb2.GetItemsResponse()
    arguments = {"item_id": "a", "text": "x", "collection": "notes"}
    async with connected(served) as agent:
        await agent.call_tool("remember", arguments)
    assert [(name, sent.collection) for name, sent in behind.seen] == [
        ("UpsertItems", "notes"),
        ("GetItems", "notes"),
    ]


async def test_tools_of_services_without_an_address_are_not_offered() -> None:
    upstream = Upstream({"RetrievalService": "127.0.0.1:1", "GenerationService": ""})
    async with Client(make_tool_server(upstream, lambda request: CallContext((), 1.0))) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
    assert names == ["search", "recommend", "why_not", "get_item", "remember", "forget"]
    await upstream.close()
