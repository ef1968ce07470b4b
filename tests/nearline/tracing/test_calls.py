"""Traces of calls between real servers, as a real collector receives them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from nearline import AsyncClient
from nearline.channel import ServiceChannel
from nearline.errors import NotReady
from nearline.forwarder import ForwardedService
from nearline.serving import running
from nearline.settings import ServerSettings
from nearline.telemetry import JsonFormatter
from nearline.tracing.spans import carry, current_span, traced_calls
from nearline.tracing.trace_context import format_traceparent
from nearline.v1 import generation_pb2, generation_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc
from tests.nearline.doors import GENERATION
from tests.nearline.tracing.recorded_spans import SAMPLED, SPAN, TRACE
from tests.nearline.tracing.services import Retrieval, registration
from tests.trace_collector import Collector, trace_collector
from tests.waits import until

SEARCH = "nearline.v1.RetrievalService/Search"
REQUEST = retrieval_pb2.SearchRequest(collection="shop")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with trace_collector() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_carried() -> Iterator[None]:
    carry(None)
    yield
    carry(None)


@contextlib.asynccontextmanager
async def search_stub(address: str) -> AsyncIterator[Any]:
    async with ServiceChannel(address) as channel:
        yield retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)


@contextlib.asynccontextmanager
async def two_services(
    collector: Collector, inner: Retrieval
) -> AsyncIterator[tuple[Any, Retrieval]]:
    """Runs a service that calls `inner`, both traced; yields the outer one after a stub of it."""
    async with (
        traced_calls(collector.address, 0.0, "retrieval"),
        running([registration(inner)]) as behind,
        search_stub(behind) as stub,
    ):
        outer = Retrieval(inner=lambda: stub.Search(REQUEST, timeout=5))
        async with running([registration(outer)]) as address, search_stub(address) as call:
            yield call, outer


async def test_a_call_of_a_call_is_one_trace_whose_parts_lie_within_each_other(
    collector: Collector,
) -> None:
    inner = Retrieval()
    async with two_services(collector, inner) as (call, _):
        done = call.Search(REQUEST, timeout=5, metadata=(("traceparent", SAMPLED),))
        await done
        trailers = dict(await done.trailing_metadata())
    assert trailers["x-trace-id"] == TRACE
    spans = {one.span_id: one for one in collector.spans if one.trace_id == TRACE}
    calls = [one for one in spans.values() if one.name == SEARCH]
    assert sorted(one.kind for one in calls) == [2, 2, 3]
    [first] = [one for one in calls if one.parent_id == SPAN]
    for one in spans.values():
        if one is not first:
            parent = spans[one.parent_id]
            assert parent.start_ns <= one.start_ns <= one.end_ns <= parent.end_ns
    assert first.service == "nearline-retrieval"
    assert first.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "nearline.v1.RetrievalService",
        "rpc.method": "Search",
        "rpc.grpc.status_code": 0,
        "nearline.collection": "shop",
        "nearline.snapshot": "s1",
        "nearline.epoch": 1,
        "nearline.shards_answered": 2,
        "nearline.shards_total": 2,
    }


async def test_an_error_is_a_code_without_its_message(collector: Collector) -> None:
    trace = "1" * 32
    retrieval = Retrieval()
    retrieval.error = NotReady("jane.doe@example.com is not here")
    async with (
        traced_calls(collector.address, 0.0, "retrieval"),
        running([registration(retrieval)]) as address,
        search_stub(address) as stub,
    ):
        header = format_traceparent(trace, SPAN, sampled=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Search(REQUEST, timeout=5, metadata=(("traceparent", header),))
    assert ("x-trace-id", trace) in tuple(caught.value.trailing_metadata())
    # The client repeats a call that was not processed.
    found = [one for one in collector.spans if one.trace_id == trace and one.name == SEARCH]
    assert {(one.error, one.attributes["rpc.grpc.status_code"]) for one in found} == {
        ("UNAVAILABLE", 14)
    }
    assert "jane" not in repr(collector.spans)


async def test_calls_that_run_side_by_side_do_not_mix(collector: Collector) -> None:
    traces = [f"{number:032x}" for number in range(0x100, 0x110)]
    async with (
        traced_calls(collector.address, 0.0, "retrieval"),
        running([registration(Retrieval())]) as behind,
        search_stub(behind) as stub,
    ):
        outer = Retrieval(0.01, inner=lambda: stub.Search(REQUEST, timeout=5))
        async with running([registration(outer)]) as address, search_stub(address) as call:
            headers = [format_traceparent(one, SPAN, sampled=True) for one in traces]
            found = await asyncio.gather(
                *(call.Search(REQUEST, timeout=5, metadata=(("traceparent", h),)) for h in headers),
                *(call.Search(REQUEST, timeout=5) for _ in headers),
            )
    assert len(found) == 32
    for trace in traces:
        names = sorted(one.name for one in collector.spans if one.trace_id == trace)
        assert names == ["admission", "admission", SEARCH, SEARCH, SEARCH]
    assert sum(outer.recorded) == 16


async def test_a_call_that_is_not_recorded_says_so_to_the_services_behind(
    collector: Collector,
) -> None:
    inner = Retrieval()
    async with two_services(collector, inner) as (call, outer):
        await call.Search(REQUEST, timeout=5)
    assert inner.metadata["traceparent"].endswith("-00")
    assert inner.recorded == outer.recorded == [False]


async def test_a_router_that_passes_calls_on_is_a_part_of_the_trace(collector: Collector) -> None:
    trace = "2" * 32
    headers: list[str] = []

    class Generation(generation_pb2_grpc.GenerationServiceServicer):
        async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
            metadata = context.invocation_metadata()
            headers.extend(value for key, value in metadata if key == "traceparent")
            for _ in range(2):
                yield generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="x"))
                await asyncio.sleep(0.02)

    def add(server: Any) -> None:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(Generation(), server)

    service = type(registration(Retrieval()))("nearline.v1.GenerationService", add)
    async with (
        traced_calls(collector.address, 0.0, "retrieval"),
        running([service]) as behind,
        running(
            [registration(Retrieval())],
            forwarded=[ForwardedService(GENERATION, behind, "--generation")],
        ) as address,
        ServiceChannel(address) as channel,
    ):
        stub = generation_pb2_grpc.GenerationServiceStub(channel.grpc_channel)
        header = format_traceparent(trace, SPAN, sampled=True)
        request = generation_pb2.GenerateRequest(question="?")
        call = stub.Generate(request, timeout=5, metadata=(("traceparent", header),))
        assert len([one async for one in call]) == 2
        trailers = tuple(await call.trailing_metadata())
    assert [one for one in trailers if one[0] == "x-trace-id"] == [("x-trace-id", trace)]
    found = [one for one in collector.spans if one.trace_id == trace and "Generate" in one.name]
    chain = sorted(found, key=lambda one: one.start_ns)
    assert [one.kind for one in chain] == [2, 3, 2]
    assert [one.parent_id for one in chain] == [SPAN, chain[0].span_id, chain[1].span_id]
    assert headers == [format_traceparent(trace, chain[1].span_id, sampled=True)]
    # Until the end of the stream.
    assert all(one.end_ns - one.start_ns > 30e6 for one in chain)


async def test_a_call_that_its_caller_gives_up_ends_as_cancelled(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    trace = "3" * 32
    began = asyncio.Event()

    async def never() -> None:
        began.set()
        await asyncio.Event().wait()

    async with (
        traced_calls(collector.address, 0.0, "retrieval"),
        running([registration(Retrieval(inner=never))]) as behind,
        search_stub(behind) as stub,
    ):
        outer = Retrieval(inner=lambda: stub.Search(REQUEST, timeout=5))
        async with running([registration(outer)]) as address, search_stub(address) as call:
            header = format_traceparent(trace, SPAN, sampled=True)
            running_call = call.Search(REQUEST, timeout=5, metadata=(("traceparent", header),))
            waiting = asyncio.ensure_future(running_call.code())
            await asyncio.wait_for(began.wait(), 5)
            running_call.cancel()
            await waiting
            await until(lambda: not (sum(one.trace_id == trace for one in collector.spans) < 5), 5)
    calls = [one for one in collector.spans if one.trace_id == trace and one.name == SEARCH]
    assert [one.error for one in calls] == ["CANCELLED"] * 3


async def test_logs_and_exemplars_of_a_recorded_call_name_its_trace(collector: Collector) -> None:
    trace = "4" * 32
    logged: list[dict[str, Any]] = []

    async def log() -> None:
        import logging

        record = logging.LogRecord("test", logging.INFO, "", 0, "event", (), None)
        logged.append(json.loads(JsonFormatter("test").format(record)))

    async with (
        traced_calls(collector.address, 0.0, "retrieval"),
        running([registration(Retrieval(inner=log))]) as address,
        search_stub(address) as stub,
    ):
        header = format_traceparent(trace, SPAN, sampled=True)
        await stub.Search(REQUEST, timeout=5)
        await stub.Search(REQUEST, timeout=5, metadata=(("traceparent", header),))
    assert [one.get("trace_id") for one in logged] == [None, trace]
    import prometheus_client

    server, thread = prometheus_client.start_http_server(0, "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept)) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))  # type: ignore[no-untyped-call]
        with urllib.request.urlopen(url) as reply:
            assert trace not in reply.read().decode(), "the plain format has no exemplars"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    found = {
        sample.exemplar.labels["trace_id"]
        for family in families
        if family.name == "nearline_server_call_seconds"
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert trace in found


class _ApplicationSpan:
    """What the API of OpenTelemetry returns for an active span."""

    class _Context:
        is_valid, trace_id, span_id = True, int(TRACE, 16), int(SPAN, 16)

        class trace_flags:
            sampled = True

    def get_span_context(self) -> Any:
        return self._Context


async def test_a_client_passes_on_the_span_of_an_application_that_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class API:
        active: Any = _ApplicationSpan()

        def get_current_span(self) -> Any:
            return self.active

    api = API()
    retrieval = Retrieval()
    async with running([registration(retrieval)]) as address, AsyncClient(address) as client:
        await client.search("tea")
        assert "traceparent" not in retrieval.metadata
        monkeypatch.setitem(sys.modules, "opentelemetry.trace", api)
        await client.search("tea")
        assert retrieval.metadata["traceparent"] == SAMPLED
        api.active = None
        # Whatever the API does, calls go on.
        await client.search("tea")
        assert "traceparent" not in retrieval.metadata
    assert current_span() is None


_OFF = """
import asyncio, sys
from nearline.channel import ServiceChannel
from nearline.serving import Registration, serve
from nearline.settings import ServerSettings
from tests.nearline.tracing.services import Retrieval, registration
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc
from nearline.tracing.spans import traced_calls

async def main():
    settings = ServerSettings()
    async with traced_calls(settings.trace_endpoint, 1.0, "retrieval"):
        from nearline.serving import running
        async with running([registration(Retrieval())]) as address:
            async with ServiceChannel(address) as channel:
                stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
                await stub.Search(retrieval_pb2.SearchRequest(), timeout=5)

asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_nothing_of_opentelemetry_is_imported_where_nothing_is_traced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OFF],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_variables_are_those_of_all_services() -> None:
    with pytest.raises(Exception, match="trace_sample"):
        ServerSettings.load({"trace_sample": "1.5"})
    chosen = ServerSettings.load(
        {}, {"NEARLINE_TRACE_ENDPOINT": "c:1", "NEARLINE_TRACE_SAMPLE": "1"}
    )
    assert (chosen.trace_endpoint, chosen.trace_sample) == ("c:1", 1.0)
