"""Spans of requests over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nearline.v1 import generation_pb2, retrieval_pb2
from tests.gateway.gateways import gateway
from tests.nearline.tracing.recorded_spans import SAMPLED, SPAN, TRACE, recording

TRACED = {"traceparent": SAMPLED}
SEARCH, ANSWERS = "/v1/collections/shop/search", "/v1/collections/shop/answers"


@pytest.fixture
def ended() -> Iterator[InMemorySpanExporter]:
    """The spans of this process, gateway and services alike."""
    with recording() as found:
        yield found


async def test_a_request_is_named_after_its_route_and_holds_the_call_of_the_service(
    ended: InMemorySpanExporter,
) -> None:
    async with gateway() as (client, behind):
        behind.answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
        reply = await client.post(SEARCH, json={"query": {"text": "tea"}}, headers=TRACED)
    assert reply.headers["x-trace-id"] == TRACE
    *_, inner, call, request = ended.get_finished_spans()
    assert request.name == "POST /v1/collections/{collection}/search"
    assert request.parent is not None and f"{request.parent.span_id:016x}" == SPAN
    for part, whole in ((call, request), (inner, call)):
        assert part.parent is not None and part.parent.span_id == whole.context.span_id
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/collections/{collection}/search",
        "http.response.status_code": 200,
    }
    assert "tea" not in repr([dict(one.attributes or {}) for one in ended.get_finished_spans()])


async def test_the_span_of_a_stream_lasts_until_its_last_event(ended: InMemorySpanExporter) -> None:
    event = generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="x"))
    async with gateway() as (client, behind):
        behind.answers["Generate"] = lambda request: [event] * 3
        async with client.stream("POST", ANSWERS, json={"question": "?"}, headers=TRACED) as reply:
            names = [line async for line in reply.aiter_lines() if line.startswith("event")]
    assert names == ["event: delta"] * 3
    spans = ended.get_finished_spans()
    assert spans[-1].name == "POST /v1/collections/{collection}/answers"
    assert max(one.end_time or 0 for one in spans) == spans[-1].end_time


async def test_requests_of_other_paths_name_none_and_probes_are_not_traced(
    ended: InMemorySpanExporter,
) -> None:
    async with gateway() as (client, _):
        assert (await client.get("/healthz", headers=TRACED)).status_code == 200
        assert ended.get_finished_spans() == ()
        assert (await client.get("/jane.doe@example.com", headers=TRACED)).status_code == 404
    [span] = ended.get_finished_spans()
    assert span.name == "GET"
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 404,
    }


@pytest.mark.parametrize("value", ["", "nonsense", "x" * 10_000, SAMPLED + "-x"])
async def test_a_hostile_header_harms_nobody(value: str, ended: InMemorySpanExporter) -> None:
    async with gateway() as (client, behind):
        behind.answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
        headers = {"traceparent": value}
        reply = await client.post(SEARCH, json={"query": {"text": "tea"}}, headers=headers)
        assert reply.status_code == 200
        assert "x-trace-id" not in reply.headers
        assert behind.metadata["traceparent"].endswith("-00")
    assert ended.get_finished_spans() == ()


async def test_a_gateway_that_does_not_trace_passes_the_header_on() -> None:
    async with gateway() as (client, behind):
        behind.answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
        await client.post(SEARCH, json={"query": {"text": "tea"}}, headers=TRACED)
        assert behind.metadata["traceparent"] == SAMPLED
        await client.post(SEARCH, json={}, headers={"traceparent": "nonsense"})
        assert "traceparent" not in behind.metadata


async def test_a_slow_request_is_a_line_with_its_route(caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(slow_request_ms=0.001) as (client, behind):
        behind.answers["Search"] = lambda request: retrieval_pb2.SearchResponse()
        with caplog.at_level(logging.WARNING):
            await client.post(SEARCH, json={"query": {"text": "tea"}})
    found = [one for one in caplog.records if one.getMessage() == "slow request"]
    assert [vars(one)["method"] for one in found] == ["POST /v1/collections/{collection}/search"]
    assert "tea" not in repr([vars(one) for one in found])


@pytest.mark.parametrize(
    ("verb", "path", "method", "is_logged"),
    [
        ("POST", SEARCH, "Search", True),
        ("POST", "/v1/embedding/embed", "Embed", True),
        ("POST", ANSWERS, "Generate", False),
        ("POST", "/v1/collections/shop/citations/verify", "VerifyCitation", False),
        ("PUT", "/v1/collections/shop/items", "UpsertItems", False),
        ("PUT", "/v1/collections/shop/items/stream", "UpsertItemsStream", False),
        ("POST", "/v1/collections/shop/jobs", "Submit", False),
        ("GET", "/v1/jobs/j1/events", "WatchJob", False),
        ("GET", "/v1/status", "GetServingStatus", False),
    ],
)
async def test_a_route_is_slow_where_the_method_behind_it_is(
    verb: str, path: str, method: str, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(slow_request_ms=0.001) as (client, _):
        with caplog.at_level(logging.WARNING):
            await client.request(verb, path, json={} if verb != "GET" else None)
    logged = any(one.getMessage() == "slow request" for one in caplog.records)
    assert logged is is_logged, method


@pytest.mark.parametrize("path", [ANSWERS, "/v1/chat/completions", "/mcp"])
@pytest.mark.parametrize(("limits", "is_logged"), [((0.001, 0.001), True), ((0, 0.001), False)])
async def test_answers_have_a_limit_of_their_own(
    path: str, limits: tuple[float, float], is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    search_ms, answer_ms = limits
    async with gateway(slow_request_ms=search_ms, slow_answer_ms=answer_ms) as (client, _):
        with caplog.at_level(logging.WARNING):
            await client.post(path, json={})
    logged = any(one.getMessage() == "slow request" for one in caplog.records)
    assert logged is is_logged
