"""What a request says arrives, what a service replies is JSON, and errors say what helps."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from starlette.requests import Request

from gateway import http_server
from gateway.application import make_application
from gateway.body import read_lines
from gateway.compatible.paths import PATHS
from gateway.routes import ROUTES
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from nearline import errors, serving
from nearline.settings import ServerSettings
from nearline.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    ingest_pb2,
    retrieval_pb2,
)
from tests.gateway.gateways import Behind, gateway
from tests.waits import until

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
SEARCH = "/v1/collections/shop/search"
Served = tuple[httpx2.AsyncClient, Behind]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="running")
async def give_running() -> AsyncIterator[Served]:
    async with gateway(max_body_bytes=4_096, allow_origins="https://shop.example") as served:
        yield served


@pytest.fixture(name="served")
def give_served(running: Served) -> Served:
    running[1].seen.clear()
    running[1].answers.clear()
    running[1].go.set()
    return running


async def test_a_search_in_plain_json(served: Served) -> None:
    client, behind = served
    hit = retrieval_pb2.Hit(id="d1", score=0.1, title="Red shoes")
    hit.attributes["price"].double_value = 79.5
    hit.attributes["sizes"].list_value.values.add(int_value=42)
    hit.attributes["since"].time_value.FromJsonString("2024-05-01T12:00:00Z")
    hit.vector.data, hit.vector.dim = b"\x00\x00\x80\x3f\x00\x00\x00\xc0", 2
    reply = retrieval_pb2.SearchResponse(result=retrieval_pb2.HitList(hits=[hit]))
    reply.info.timings.total.FromMilliseconds(3)
    behind.answers["Search"] = lambda request: reply
    found = await client.post(
        SEARCH,
        json={
            "query": {"text": "shoes"},
            "options": {
                "k": 2,
                "mode": "hybrid",
                "payload": ["title", "vector"],
                "filter": "price < 80 AND NOT brand = acme",
                "min_score": 0,
            },
        },
    )
    assert found.status_code == 200 and found.headers["content-type"] == "application/json"
    request = behind.request
    assert (request.collection, request.query.text, request.options.k) == ("shop", "shoes", 2)
    assert request.options.mode == retrieval_pb2.SEARCH_MODE_HYBRID
    assert list(request.options.payload) == [1, 4]
    assert request.options.HasField("min_score")
    assert [one.WhichOneof("condition") for one in request.options.filter.all.filters] == [
        "range",
        "not",
    ]
    body = found.json()
    (got,) = body["result"]["hits"]
    assert got["score"] == 0.1 and got["vector"] == [1.0, -2.0]
    assert got["attributes"] == {
        "price": 79.5,
        "sizes": [42],
        "since": {"$time": "2024-05-01T12:00:00Z"},
    }
    assert "text" not in got and body["info"]["timings"] == {"total": 0.003}


@pytest.mark.parametrize(
    ("error", "status", "more"),
    [
        (errors.InvalidRequest("k is 0", field="options.k"), 400, {"field": "options.k"}),
        (errors.Unauthenticated("no credential"), 401, {}),
        (errors.PermissionDenied("may not"), 403, {}),
        (errors.NotFound("no such"), 404, {}),
        (errors.Conflict("changed"), 409, {}),
        (errors.SnapshotGone("gone"), 409, {}),
        (errors.Overloaded("too many", retry_after_s=1.25), 429, {"retry_after_s": 1.25}),
        (errors.FeedBlocked("full"), 429, {}),
        (errors.NotReady("loading", retry_after_s=0.5), 503, {"retry_after_s": 0.5}),
        (errors.DeadlineExceeded("late"), 504, {}),
        (errors.Unsupported("not here"), 501, {}),
        (errors.SnapshotCorrupt("damaged"), 500, {}),
    ],
)
async def test_an_error_is_a_problem_with_reason_and_remedy(
    served: Served, error: errors.NearlineError, status: int, more: dict[str, Any]
) -> None:
    client, behind = served

    def fail(request: object) -> None:
        raise error

    behind.answers["Search"] = fail
    headers = {"x-request-id": "r1"}
    found = await client.post(SEARCH, json={"query": {"text": "x"}}, headers=headers)
    assert found.status_code == status
    assert found.headers["content-type"] == "application/problem+json"
    assert found.headers["x-request-id"] == "r1"
    problem = found.json()
    assert problem.items() >= {"status": status, "reason": error.reason, "request_id": "r1"}.items()
    assert problem["detail"] == error.message
    assert {one: problem[one] for one in ("field", "retry_after_s") if one in problem} == more
    if "retry_after_s" in more:
        assert found.headers["retry-after"] == ("2" if status == 429 else "1")
    if status == 401:
        assert found.headers["www-authenticate"] == "Bearer"


async def test_headers_say_who_asks_how_long_it_may_take_and_how_urgent_it_is(
    served: Served,
) -> None:
    client, behind = served
    behind.answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
    for given, sent in (
        ({"authorization": "Bearer k1"}, "Bearer k1"),
        ({"api-key": "k2"}, "Bearer k2"),
        ({"x-api-key": "k3"}, "Bearer k3"),
    ):
        headers = {**given, "nearline-timeout": "2.5", "nearline-lane": "bulk"}
        assert (await client.post(SEARCH, json={}, headers=headers)).status_code == 200
        assert behind.metadata["authorization"] == sent
        assert behind.metadata["nearline-lane"] == "bulk"
        assert behind.left_s is not None and 1.5 < behind.left_s < 2.6
    # What no service looks at is not passed on.
    await client.post(SEARCH, json={}, headers={"nearline-caller-bin": "e30="})
    assert "nearline-caller-bin" not in behind.metadata
    assert "authorization" not in behind.metadata
    assert behind.left_s is not None and 5 < behind.left_s < 10.2


async def test_how_sure_to_be_is_a_word_and_the_end_says_what_came(served: Served) -> None:
    client, behind = served
    done = generation_pb2.DoneEvent(not_sure=True)
    behind.answers["Generate"] = lambda request: [generation_pb2.GenerateResponse(done=done)]
    path = "/v1/collections/shop/answers"
    found = await client.post(path, json={"question": "x", "strictness": "lenient"})
    assert behind.request.strictness == generation_pb2.STRICTNESS_LENIENT
    name, data = found.text.splitlines()[:2]
    assert name == "event: done" and json.loads(data.removeprefix("data: "))["not_sure"] is True
    wrong = await client.post(path, json={"question": "x", "strictness": "harsh"})
    assert wrong.status_code == 400 and "strict" in wrong.json()["detail"]
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    words = schemas["GenerateRequest"]["properties"]["strictness"]["enum"]
    assert set(words) >= {"strict", "balanced", "lenient"}


async def test_a_request_whose_client_has_gone_is_cancelled(served: Served) -> None:
    client, behind = served
    behind.go.clear()
    behind.cancelled.clear()
    waiting = asyncio.create_task(client.post(SEARCH, json={}))
    while not behind.seen:
        await asyncio.sleep(0)
    waiting.cancel()
    await until(lambda: behind.cancelled == ["Search"])


async def test_an_answer_comes_as_events_and_its_error_too(served: Served) -> None:
    client, behind = served
    events = [
        generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="Yes. ")),
        generation_pb2.GenerateResponse(done=generation_pb2.DoneEvent()),
        errors.NotReady("the model has gone"),
    ]
    behind.answers["Generate"] = lambda request: events
    found = await client.post("/v1/collections/shop/answers", json={"question": "x?"})
    assert found.headers["content-type"].startswith("text/event-stream")
    parsed = [
        (kind.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for kind, data in (part.split("\n") for part in found.text.strip().split("\n\n"))
    ]
    assert [kind for kind, _ in parsed] == ["delta", "done", "error"]
    assert parsed[0][1]["text"] == "Yes. "
    assert parsed[2][1]["reason"] == "NOT_READY" and parsed[2][1]["status"] == 503
    assert parsed[2][1]["request_id"] == found.headers["x-request-id"]
    # Proxies neither keep nor collect them.
    assert found.headers["cache-control"] == "no-store"
    assert found.headers["x-accel-buffering"] == "no"
    # Before the first event, an error has its own status.
    behind.answers["Generate"] = lambda request: events[2:]
    found = await client.post("/v1/collections/shop/answers", json={"question": "x?"})
    assert found.status_code == 503


async def test_a_stream_of_writes_is_a_line_of_json_per_batch(served: Served) -> None:
    client, behind = served
    behind.answers["UpsertItemsStream"] = lambda last: retrieval_pb2.UpsertItemsStreamResponse()
    lines = b'{"items": [{"id": "a", "attributes": {"n": 1}}]}\n\n{"items": [{"id": "b"}]}'
    path = "/v1/collections/shop/items/stream"
    assert (await client.put(path, content=lines)).status_code == 200
    assert [one.request.items[0].id for _, one in behind.seen] == ["a", "b"]
    assert {one.request.collection for _, one in behind.seen} == {"shop"}
    # Writing takes as long as its caller sends.
    assert behind.left_s is None
    found = await client.put(path, content=b'{"items": []}\n{"itms": []}\n')
    assert found.status_code == 400
    assert found.json()["field"] == "line 2.itms"
    found = await client.put(path, content=b'{"items": [{"id": "' + b"x" * 5_000 + b'"}]}')
    assert found.status_code == 413 and "4,096 are allowed" in found.json()["detail"]


async def test_what_is_in_the_query_are_fields_of_the_request(served: Served) -> None:
    client, behind = served
    behind.answers["ListJobs"] = lambda request: ingest_pb2.ListJobsResponse()
    found = await client.get("/v1/jobs?page_size=7&page_token=t")
    assert found.status_code == 200, found.text
    assert (behind.request.page_size, behind.request.page_token) == (7, "t")
    for query, field in (("page_size=x", "page_size"), ("pagesize=1", "pagesize")):
        found = await client.get(f"/v1/jobs?{query}")
        assert (found.status_code, found.json()["field"]) == (400, field)


async def test_pages_of_an_allowed_origin_may_call_and_no_others(served: Served) -> None:
    client, behind = served
    behind.answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
    for origin, allowed in (("https://shop.example", True), ("https://evil.example", False)):
        headers = {"origin": origin, "access-control-request-method": "POST"}
        found = await client.options(SEARCH, headers=headers)
        assert (found.status_code == 200) is allowed
        found = await client.post(SEARCH, json={}, headers={"origin": origin})
        assert ("access-control-allow-origin" in found.headers) is allowed


async def test_large_replies_are_compressed_where_the_client_takes_it(served: Served) -> None:
    client, behind = served
    hits = [retrieval_pb2.Hit(id=f"d{n}", title="x" * 100) for n in range(5_000)]
    reply = retrieval_pb2.SearchResponse(result=retrieval_pb2.HitList(hits=hits))
    behind.answers["Search"] = lambda request: reply
    found = await client.post(SEARCH, json={}, headers={"accept-encoding": "gzip"})
    assert found.headers["content-encoding"] == "gzip"
    assert len(found.json()["result"]["hits"]) == 5_000
    found = await client.post(SEARCH, json={}, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in found.headers


async def test_batches_of_texts_are_embedded_line_by_line(served: Served) -> None:
    client, behind = served
    path = "/v1/embedding/embed/stream"
    reply = embedding_pb2.EmbedStreamResponse()
    reply.response.vectors.data, reply.response.vectors.dim = b"\x00\x00\x80\x3f", 1
    behind.answers["EmbedStream"] = lambda last: [reply, reply]
    found = await client.post(path, content=b'{"texts": ["a"]}\n{"texts": ["b"], "lane": "bulk"}')
    assert found.headers["content-type"] == "application/x-ndjson"
    assert behind.left_s is None
    assert [json.loads(line)["vectors"] for line in found.text.splitlines()] == [[[1.0]]] * 2
    assert [one.request.texts[0] for _, one in behind.seen] == ["a", "b"]
    found = await client.post(path, content=b'{"texts": "a"}')
    assert (found.status_code, found.json()["field"]) == (400, "line 1.texts")


async def test_requests_are_counted_by_path_and_status_not_by_what_a_path_names() -> None:
    async with gateway() as (client, _behind):
        for collection in ("shop", "another"):
            await client.post(f"/v1/collections/{collection}/search", json={"query": {"tex": ""}})
    value = REGISTRY.get_sample_value(
        "nearline_gateway_request_seconds_count",
        {"path": "/v1/collections/{collection}/search", "status": "400"},
    )
    assert value is not None and value >= 2


async def test_a_caller_whose_calls_take_every_place_of_its_connection_keeps_few_others_out() -> (
    None
):
    async with gateway(services=ServerSettings(max_streams=2)) as (client, behind):
        behind.answers["Search"] = lambda _: retrieval_pb2.SearchResponse()

        def search(key: str) -> asyncio.Task[httpx2.Response]:
            headers = {"authorization": f"Bearer {key}"}
            path = "/v1/collections/default/search"
            return asyncio.create_task(client.post(path, json={"query": {}}, headers=headers))

        await asyncio.gather(search("flood"), *(search(f"key {number}") for number in range(8)))
        behind.seen.clear()
        behind.go.clear()
        flood = [search("flood") for _ in range(6)]
        await until(lambda: len(behind.seen) >= 2)
        others = [search(f"key {number}") for number in range(8)]
        await until(lambda: len(behind.seen) >= 2 + 4)
        behind.go.set()
        replies = await asyncio.gather(*flood, *others)
    assert {reply.status_code for reply in replies} == {200}


async def test_the_id_of_a_reply_is_the_one_that_the_service_got(served: Served) -> None:
    client, behind = served
    behind.answers["Search"] = lambda _: retrieval_pb2.SearchResponse()
    reply = await client.post(SEARCH, json={"query": {}})
    assert reply.headers["x-request-id"] == behind.metadata["x-request-id"]


async def test_a_request_may_take_no_longer_than_the_gateway_lets_it() -> None:
    async with gateway(timeout_s=2, max_timeout_s=4) as (client, behind):
        behind.answers["Search"] = lambda _: retrieval_pb2.SearchResponse()
        for given, least_s, most_s in ((None, 1, 2), ("3", 2, 3), ("3600", 3, 4), ("inf", 3, 4)):
            headers = {} if given is None else {"nearline-timeout": given}
            assert (await client.post(SEARCH, json={}, headers=headers)).status_code == 200
            assert behind.left_s is not None and least_s < behind.left_s < most_s + 0.1


async def test_a_long_line_in_small_parts_costs_time_in_proportion_to_its_bytes() -> None:
    parts = [b"a\n\n", b"x" * (15 << 20), *[b"y"] * 2_000, b"\nb"]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    request = Request({"type": "http", "method": "PUT", "headers": []}, receive)
    start = time.process_time()
    lines = [(number, len(line)) async for number, line in read_lines(request, 16 << 20)]
    assert lines == [(1, 1), (3, (15 << 20) + 2_000), (4, 1)]
    # Searching the whole line for each of the small parts takes ten seconds.
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("verb", "path", "name"),
    [
        ("PUT", "/items/stream", "UpsertItemsStream"),
        ("POST", "/interactions/import", "ImportInteractions"),
    ],
)
async def test_a_refusal_is_answered_before_a_line_is_complete(
    tmp_path: Path, verb: str, path: str, name: str
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text("# Nobody.\n", encoding="utf-8")
    keys.chmod(0o600)
    async with gateway(ServerSettings(keys=str(keys))) as (client, behind):
        host, port = client.base_url.host, client.base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        try:
            head = f"{verb} /v1/collections/shop{path} HTTP/1.1\r\nhost: localhost\r\n"
            kind = "content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
            writer.write((head + kind).encode() + b'5\r\n{"a":\r\n')
            async with asyncio.timeout(5):
                found = await reader.readuntil(b"\r\n\r\n")
            assert b" 401 " in found and not behind.seen
        finally:
            writer.close()


@pytest.mark.parametrize("length", ["content-length: 2000000", "transfer-encoding: chunked"])
async def test_an_unknown_caller_is_refused_before_a_byte_of_its_body_is_read(
    tmp_path: Path, length: str
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text("# Nobody.\n", encoding="utf-8")
    keys.chmod(0o600)
    places = {(one.verb, one.path) for one in PATHS if one.verb == "POST"}
    for methods in ROUTES.values():
        places |= {(one.verb, one.path) for one in methods.values() if one.has_body}
    async with gateway(ServerSettings(keys=str(keys))) as (client, behind):
        host, port = client.base_url.host, client.base_url.port
        for verb, path in (*sorted(places), ("POST", "/mcp")):
            reader, writer = await asyncio.open_connection(host, port)
            head = f"{verb} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer x\r\n"
            writer.write(f"{head}{length}\r\n\r\n".encode())
            async with asyncio.timeout(5):
                assert b" 401 " in await reader.readuntil(b"\r\n\r\n"), path
            writer.close()
        assert not behind.seen


async def test_the_work_for_a_client_that_has_gone_ends() -> None:
    async with gateway() as (client, behind):
        host, port = client.base_url.host, client.base_url.port
        _, writer = await asyncio.open_connection(host, port)
        items = b'{"items": [' + b"{}," * 3_000_000 + b"{}]}"
        kind = f"content-type: application/json\r\ncontent-length: {len(items)}\r\n\r\n"
        path = "/v1/collections/shop/items"
        writer.write(f"PUT {path} HTTP/1.1\r\nhost: localhost\r\n{kind}".encode() + items)
        async with asyncio.timeout(20):
            await writer.drain()
            while not _is_decoding():
                await asyncio.sleep(0.001)
            writer.close()
            start = time.monotonic()
            while _is_decoding():
                await asyncio.sleep(0.001)
        assert time.monotonic() - start < 1 and not behind.seen


def _is_decoding() -> bool:
    frames = sys._current_frames().values()
    return any(frame.f_code.co_filename.endswith("json_decoder.py") for frame in frames)


class _Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Replies to each request of a stream as it comes."""

    async def EmbedStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield embedding_pb2.EmbedStreamResponse()


async def test_each_line_of_a_stream_is_answered_though_replies_have_begun() -> None:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b'{"texts": ["%d"]}\n' % number
            await asyncio.sleep(0.001)

    add = partial(embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server, _Embedding())
    async with serving.running(
        [serving.Registration("nearline.v1.EmbeddingService", add)]
    ) as service:
        chosen = GatewaySettings.load({"port": 0, "embedding": service})
        application = make_application(chosen, Upstream.of(chosen))
        async with (
            http_server.serving(application, chosen) as address,
            httpx2.AsyncClient(trust_env=False, timeout=10) as client,
        ):
            path = f"http://{address}/v1/embedding/embed/stream"
            headers = {"content-type": "application/x-ndjson"}
            found = await client.post(path, content=lines(), headers=headers)
    assert found.status_code == 200 and len(found.text.splitlines()) == 100
