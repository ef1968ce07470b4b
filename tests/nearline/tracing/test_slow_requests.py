"""The log of slow requests."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY

from nearline.channel import ServiceChannel
from nearline.contract import Lane
from nearline.errors import DeadlineExceeded, Unsupported
from nearline.serving import Registration, running
from nearline.settings import ServerSettings
from nearline.telemetry import JsonFormatter
from nearline.tracing.slow_requests import SlowRequestLog
from nearline.tracing.spans import begin_request
from nearline.v1 import embedding_pb2, embedding_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc
from tests.nearline.tracing.recorded_spans import SAMPLED, TRACE, recording
from tests.nearline.tracing.services import Retrieval, registration

LOGGER = "nearline.tracing.slow_requests"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    formatter = JsonFormatter("test")
    return [json.loads(formatter.format(one)) for one in caplog.records if one.name == LOGGER]


def left_out_lines() -> float:
    name, labels = "nearline_slow_requests_total", {"outcome": "left_out"}
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def search(address: str, **fields: Any) -> None:
    async with ServiceChannel(address) as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
        await channel.send(stub.Search, retrieval_pb2.SearchRequest(**fields), 5)


async def test_a_slow_call_is_a_line_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    retrieval = Retrieval(takes_s=0.05)
    settings = ServerSettings(slow_request_ms=50)
    options = retrieval_pb2.SearchOptions(k=3)
    async with running([registration(retrieval)], settings=settings) as address:
        await search(address, collection="shop", options=options)
        retrieval.takes_s = 0.0
        await search(address, collection="shop")
        retrieval.error = DeadlineExceeded("too late: jane.doe@example.com")
        retrieval.takes_s = 0.05
        with pytest.raises(DeadlineExceeded):
            await search(address, collection="shop")
    first, second = lines(caplog)
    assert first["duration_ms"] >= 50
    facts = ("event", "method", "code", "collection", "k", "snapshot", "shards_total", "level")
    assert [first[one] for one in facts] == [
        *("slow request", "nearline.v1.RetrievalService/Search", "OK", "shop", 3, "s1", 2),
        "warning",
    ]
    assert second["code"] == "DEADLINE_EXCEEDED"
    assert "jane" not in json.dumps([first, second])
    assert "trace_id" not in first


async def test_no_line_is_written_where_it_is_switched_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = ServerSettings(slow_request_ms=0)
    async with running([registration(Retrieval(takes_s=0.05))], settings=settings) as address:
        await search(address)
    assert lines(caplog) == []


async def test_bulk_work_is_never_slow(caplog: pytest.LogCaptureFixture) -> None:
    settings = ServerSettings(slow_request_ms=0.001)
    async with running([registration(Retrieval())], settings=settings) as address:
        async with ServiceChannel(address) as channel:
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
            with pytest.raises(Unsupported):
                await channel.send(stub.UpsertItems, retrieval_pb2.UpsertItemsRequest(), 5)
            assert lines(caplog) == []
            with pytest.raises(Unsupported):
                await channel.send(stub.DeleteItems, retrieval_pb2.DeleteItemsRequest(), 5)
    assert [one["method"] for one in lines(caplog)] == ["nearline.v1.RetrievalService/DeleteItems"]


async def test_a_call_that_says_that_nobody_waits_is_never_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def add(server: Any) -> None:
        servicer = embedding_pb2_grpc.EmbeddingServiceServicer()
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(servicer, server)

    embedding = Registration("nearline.v1.EmbeddingService", add)
    settings = ServerSettings(slow_request_ms=0.001)
    bulk = embedding_pb2.LANE_BULK
    lanes = ((Lane.BULK, None), (Lane.INTERACTIVE, bulk), (Lane.INTERACTIVE, None))
    async with running([embedding], settings=settings) as address:
        for lane, wanted in lanes:
            async with ServiceChannel(address, lane=lane) as channel:
                stub = embedding_pb2_grpc.EmbeddingServiceStub(channel.grpc_channel)
                assert lines(caplog) == []
                with pytest.raises(Unsupported):
                    await channel.send(stub.Embed, embedding_pb2.EmbedRequest(lane=wanted), 5)
    assert len(lines(caplog)) == 1


def test_limits_of_one_process_share_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    log = SlowRequestLog(1)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            log.write("a/B", "OK", 2.0, {}, None)
            log.with_limit(5).write("a/C", "OK", 2.0, {}, None)
    assert len(lines(caplog)) < 20
    assert [log.with_limit(5).is_slow(one) for one in (0.004, 0.005)] == [False, True]


def test_a_flood_of_slow_requests_is_a_few_lines_and_a_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = SlowRequestLog(1)
    before = left_out_lines()
    with caplog.at_level(logging.WARNING):
        for _ in range(500):
            log.write("a/B", "OK", 2.0, {}, None)
    assert 10 <= len(lines(caplog)) < 20
    assert left_out_lines() - before == 500 - len(lines(caplog))


def test_a_recorded_request_names_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    with recording():
        SlowRequestLog(1).write("a/B", "OK", 2.0, {"k": 1}, begin_request("a/B", SAMPLED))
    [line] = lines(caplog)
    assert (line["trace_id"], line["k"], line["duration_ms"]) == (TRACE, 1, 2_000.0)
