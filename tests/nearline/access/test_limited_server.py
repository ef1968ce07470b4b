"""Limits over a real server: refusals with the time to retry, headers, and fairness of keys."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from nearline.access.caller import Caller
from nearline.access.caller_file import CallerFile
from nearline.access.delegation import delegation_of
from nearline.access.rights import Right
from nearline.admission import Admission
from nearline.channel import ServiceChannel
from nearline.errors import Overloaded
from nearline.serving import Registration, running
from nearline.settings import ServerSettings
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc

pytestmark = pytest.mark.service
LIMITS = """
[default]
requests_per_s = 0.05
burst = 5
concurrent = 2
request_bytes = 2_000
"""
# How long a refusal is held back.
HELD_S = 0.25


class Held(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers once it may."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.arrived = 0
        self.error: Exception = ZeroDivisionError()

    async def Search(self, request: Any, context: Any) -> retrieval_pb2.SearchResponse:
        self.arrived += 1
        await self.go.wait()
        return retrieval_pb2.SearchResponse()

    async def UpsertItemsStream(
        self, requests: Any, context: Any
    ) -> retrieval_pb2.UpsertItemsStreamResponse:
        async for _ in requests:
            self.arrived += 1
        return retrieval_pb2.UpsertItemsStreamResponse()

    async def ListItems(self, request: Any, context: Any) -> retrieval_pb2.ListItemsResponse:
        raise self.error


@dataclass
class Limited:
    address: str
    held: Held

    async def call(self, token: str, method: str = "Search", text: str = "") -> Any:
        """Returns the call, which has ended."""
        async with ServiceChannel(self.address, token=token) as channel:
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
            if method == "ListItems":
                call: Any = stub.ListItems(retrieval_pb2.ListItemsRequest())
            else:
                query = retrieval_pb2.Query(text=text)
                call = stub.Search(retrieval_pb2.SearchRequest(query=query))
            await call.code()
            return call


def trailers(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata if key.startswith(("ratelimit", "grpc-retry"))}


@pytest_asyncio.fixture(name="limited")
async def give_limited(tmp_path: Path) -> AsyncIterator[Limited]:
    async with limited_server(tmp_path) as limited:
        yield limited


@contextlib.asynccontextmanager
async def limited_server(folder: Path, **more: Any) -> AsyncIterator[Limited]:
    """Runs a server with limits. more: Other settings."""
    (folder / "limits.toml").write_text(LIMITS)
    known = CallerFile(
        {
            sha256(name.encode()).hexdigest(): Caller(tenant, rights={"*": Right.WRITE}, name=name)
            for name, tenant in {"a1": "a", "a2": "a", "b1": "b", "operator": "*"}.items()
        }
        | {sha256(b"service").hexdigest(): Caller("*", rights={"*": Right.SERVICE}, name="s")}
    )
    held = Held()
    registration = Registration(
        "nearline.v1.RetrievalService",
        lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(held, server),
    )
    settings = ServerSettings(limits=str(folder / "limits.toml"), port=0, **more)
    async with running([registration], callers=known, settings=settings) as address:
        yield Limited(address, held)


async def test_a_flood_of_one_tenant_is_refused_and_no_other_notices(limited: Limited) -> None:
    codes = [await (await limited.call(token)).code() for token in ("a1", "a2") * 5]
    assert codes[:5] == [grpc.StatusCode.OK] * 5
    assert codes[5:] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 5
    refused = await limited.call("a1")
    assert "tenant 'a' may send 0.05 requests per second" in await refused.details()
    # gRPC's own clients wait as long as it says.
    assert 0 < int(trailers(await refused.trailing_metadata())["grpc-retry-pushback-ms"]) <= 20_000
    assert await (await limited.call("b1")).code() is grpc.StatusCode.OK
    for _ in range(20):
        assert await (await limited.call("operator")).code() is grpc.StatusCode.OK


async def test_a_flood_of_refusals_is_held_back_and_keeps_no_call_of_its_tenant_out(
    limited: Limited,
) -> None:
    start = time.perf_counter()
    codes = [await (await limited.call("a1")).code() for _ in range(15)]
    assert codes[5:] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 10
    # Few refusals are told at once.
    assert time.perf_counter() - start < 10 * HELD_S
    async with ServiceChannel(limited.address, token="b1") as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
        start = time.perf_counter()
        calls = [stub.Search(retrieval_pb2.SearchRequest()) for _ in range(40)]
        refused = Counter([await call.code() for call in calls])
        assert refused[grpc.StatusCode.RESOURCE_EXHAUSTED] >= 35
        assert time.perf_counter() - start >= HELD_S
        # A refusal that is held back comes before the deadline of its call. Ten are told at once.
        calls = [stub.Search(retrieval_pb2.SearchRequest(), timeout=0.2) for _ in range(15)]
        refused = Counter([await call.code() for call in calls])
        assert refused[grpc.StatusCode.RESOURCE_EXHAUSTED] > 10


@contextlib.asynccontextmanager
async def full(limited: Limited, max_calls: int) -> AsyncIterator[None]:
    """Fills a server with calls, and lets later refusals be held back."""
    limited.held.go.clear()
    waiting = [asyncio.create_task(limited.call("operator")) for _ in range(max_calls)]
    while limited.held.arrived < max_calls:
        await asyncio.sleep(0)
    await asyncio.gather(*(limited.call("operator") for _ in range(10)))
    try:
        yield
    finally:
        limited.held.go.set()
        await asyncio.gather(*waiting)


async def test_a_refusal_that_is_held_back_does_not_count_as_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with limited_server(tmp_path, max_calls=2) as limited, full(limited, 2):
        # Two of a tenant may run at once, so two are held back before the third one comes.
        holds_s = [60.0, 60.0, 0.0]
        monkeypatch.setattr(Admission, "hold_s", lambda _: holds_s.pop(0))
        waiting = []
        async with asyncio.timeout(10):
            for left in (2, 1):
                waiting.append(asyncio.create_task(limited.call("a1")))
                while len(holds_s) > left:
                    await asyncio.sleep(0.001)
            refused = await limited.call("a1")
        assert "2 calls are running" in await refused.details()
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)


async def test_a_call_that_began_is_not_held_back_whatever_it_ends_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Admission, "hold_s", lambda _: 60.0)
    async with limited_server(tmp_path) as limited, asyncio.timeout(10):
        limited.held.error = Overloaded("the service behind has too much to do")
        call = await limited.call("a1", "ListItems")
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_refusals_are_not_held_back_for_a_service_that_calls_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearline.admission._RETRY_AFTER_S", 60.0)
    anna = Caller("a", rights={"*": Right.READ}, name="anna")
    async with (
        limited_server(tmp_path, max_calls=2) as limited,
        full(limited, 2),
        ServiceChannel(limited.address, token="service") as channel,
    ):
        stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
        call = stub.Search(retrieval_pb2.SearchRequest(), metadata=[delegation_of(anna)])
        async with asyncio.timeout(10):
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("method", ["Search", "ListItems"])
async def test_every_reply_says_what_is_left(limited: Limited, method: str) -> None:
    call = await limited.call("b1", method)
    told = trailers(await call.trailing_metadata())["ratelimit"]
    found = re.fullmatch(r"limit=0\.05, remaining=4, reset=([0-9.]+)", told)
    assert found is not None and 0 < float(found[1]) <= 20
    call = await limited.call("operator", method)
    assert trailers(await call.trailing_metadata()) == {}


async def test_calls_that_end_in_any_way_no_longer_count(limited: Limited) -> None:
    limited.held.go.clear()
    waiting = [asyncio.create_task(limited.call("a1")) for _ in range(2)]
    while limited.held.arrived < 2:
        await asyncio.sleep(0)
    refused = await limited.call("a2")
    assert "2 calls of tenant 'a' are running" in await refused.details()
    waiting[0].cancel()
    limited.held.go.set()
    await asyncio.wait(waiting)
    for method, code in (
        ("ListItems", grpc.StatusCode.INTERNAL),
        ("Search", grpc.StatusCode.OK),
        ("Search", grpc.StatusCode.OK),
    ):
        assert await (await limited.call("a2", method)).code() is code


async def test_a_request_over_its_limit_is_refused_before_it_runs(limited: Limited) -> None:
    call = await limited.call("b1", text="x" * 2_000)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the limit of tenant 'b' is 2,000 (request_bytes)" in await call.details()
    assert limited.held.arrived == 0


async def test_a_stream_is_refused_from_its_first_larger_request_on(limited: Limited) -> None:
    async with ServiceChannel(limited.address, token="b1") as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
        call: Any = stub.UpsertItemsStream()
        for size in (1_000, 2_001):
            one = retrieval_pb2.UpsertItemsRequest(idempotency_key="x" * size)
            await call.write(retrieval_pb2.UpsertItemsStreamRequest(request=one))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the limit of tenant 'b' is 2,000 (request_bytes)" in await call.details()
    assert limited.held.arrived == 1


async def test_each_request_of_a_stream_counts(limited: Limited) -> None:
    async with ServiceChannel(limited.address, token="a1") as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
        call: Any = stub.UpsertItemsStream()
        # The call itself was the first of five. The stream stays open: gRPC would lose the status
        # if it failed to send anything after the refusal (grpc/grpc#36066).
        for _ in range(5):
            await call.write(retrieval_pb2.UpsertItemsStreamRequest())
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert limited.held.arrived == 4
