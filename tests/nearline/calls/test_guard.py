"""The guard of every method: calls at once, and requests that cannot be decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nearline import status
from nearline.admission import Admission, EndCall, leave_out, note_overload
from nearline.calls.guard import Context
from nearline.channel import ServiceChannel
from nearline.clients import EmbeddingClient
from nearline.contract import Lane
from nearline.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unsupported
from nearline.serving import Registration, running, serve
from nearline.settings import ServerSettings
from nearline.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
    types_pb2,
)
from nearline_cli.local.processes import free_port
from tests.waits import until


class Gate(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Answers Embed once its gate is open, and GetInfo at once."""

    def __init__(self) -> None:
        self.entered = 0
        self.left_out: list[bool] = []
        self.gate = asyncio.Event()

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse:
        self.entered += 1
        self.left_out.append(leave_out("monitor"))
        await self.gate.wait()
        return embedding_pb2.EmbedResponse()

    async def GetInfo(
        self, request: embedding_pb2.GetInfoRequest, context: Context
    ) -> embedding_pb2.GetInfoResponse:
        return embedding_pb2.GetInfoResponse(model="gate")

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        async for _ in request_iterator:
            yield embedding_pb2.EmbedStreamResponse()

    def registration(self) -> Registration:
        return Registration(
            "nearline.v1.EmbeddingService",
            lambda server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self, server),
        )


async def test_calls_beyond_the_limit_are_refused_with_a_time_and_status_is_still_given() -> None:
    gate, loaded = Gate(), asyncio.Event()
    config = ServerSettings.load({"port": free_port(), "drain_s": 0, "max_calls": 2})

    async def ready() -> None:
        loaded.set()

    server = asyncio.create_task(serve(config, [gate.registration()], ready=ready))
    await loaded.wait()
    address = f"127.0.0.1:{config.port}"
    async with (
        EmbeddingClient(address) as client,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        request = embedding_pb2.EmbedRequest()
        running_calls = [stub.Embed(request, timeout=20, wait_for_ready=True) for _ in range(2)]
        await until(lambda: gate.entered == 2)
        with pytest.raises(Overloaded, match="2 calls are running and 0 are waiting") as caught:
            await client.call(lambda: stub.Embed(request, timeout=20))
        assert caught.value.retry_after_s
        assert (await client.info()).model == "gate"
        # A call that is given up makes room.
        running_calls.pop().cancel()
        gate.entered = 0

        async def admitted() -> None:
            while True:
                call = stub.Embed(request, timeout=20)
                running_calls.append(call)
                done, _ = await asyncio.wait((asyncio.ensure_future(call.code()),), timeout=0.2)
                if not done:
                    return
                running_calls.pop()

        await asyncio.wait_for(admitted(), 10)
        assert gate.entered == 1
        gate.gate.set()
        await asyncio.gather(*running_calls)
        await stub.Embed(request, timeout=20)
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


async def test_calls_beyond_those_of_a_connection_wait_in_the_client_and_another_is_served() -> (
    None
):
    gate = Gate()
    settings = ServerSettings(max_streams=2)
    own = (("grpc.use_local_subchannel_pool", 1),)
    async with (
        running([gate.registration()], settings=settings) as address,
        grpc.aio.insecure_channel(address, own) as busy,
        grpc.aio.insecure_channel(address, own) as other,
    ):
        request = embedding_pb2.EmbedRequest()
        calls = [embedding_pb2_grpc.EmbeddingServiceStub(busy).Embed(request) for _ in range(3)]
        await until(lambda: gate.entered == 2)
        calls.append(embedding_pb2_grpc.EmbeddingServiceStub(other).Embed(request))
        await until(lambda: gate.entered == 3)
        gate.gate.set()
        await asyncio.gather(*calls)
        assert gate.entered == 4


async def test_a_crowded_server_leaves_half_of_its_room_to_calls_for_which_somebody_waits() -> None:
    gate = Gate()
    settings = ServerSettings(max_calls=4)
    async with (
        running([gate.registration()], settings=settings) as address,
        ServiceChannel(address, lane=Lane.BULK) as bulk,
        ServiceChannel(address, token="not asked for", lane=Lane.BULK) as secured,
        ServiceChannel(address) as interactive,
    ):

        def embed(channel: ServiceChannel) -> Any:
            request = embedding_pb2.EmbedRequest()
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel.grpc_channel)
            return channel.call(lambda: stub.Embed(request, timeout=20))

        calls = [asyncio.create_task(embed(channel)) for channel in (bulk, secured)]
        await until(lambda: gate.entered == 2)
        waiting = asyncio.create_task(embed(bulk))
        calls.append(asyncio.create_task(embed(interactive)))
        await until(lambda: gate.entered == 3)
        # Nobody waits for the one that waits for its turn.
        calls.append(asyncio.create_task(embed(interactive)))
        with pytest.raises(Overloaded, match="3 calls are running and 1 are waiting"):
            await waiting
        await until(lambda: gate.entered == 4)
        gate.gate.set()
        await asyncio.gather(*calls)
        assert gate.entered == 4


async def test_writes_and_pages_are_of_the_lane_bulk_although_their_callers_do_not_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin, lanes = Admission.begin, []

    async def note(self: Admission, tenant: str, left_s: float | None, lane: Lane) -> EndCall:
        lanes.append(lane)
        return await begin(self, tenant, left_s, lane)

    monkeypatch.setattr(Admission, "begin", note)
    registration = Registration(
        "nearline.v1.RetrievalService",
        lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(
            retrieval_pb2_grpc.RetrievalServiceServicer(), server
        ),
    )
    async with running([registration]) as address, ServiceChannel(address) as channel:
        stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel.grpc_channel)
        await stub.UpsertItems(retrieval_pb2.UpsertItemsRequest()).code()
        await stub.ListItems(retrieval_pb2.ListItemsRequest()).code()
        await stub.Search(retrieval_pb2.SearchRequest()).code()
    assert lanes == [Lane.BULK, Lane.BULK, Lane.INTERACTIVE]


async def test_a_call_that_had_to_wait_does_without_optional_work_and_no_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = Admission.begin

    async def wait(self: Admission, tenant: str, left_s: float | None, lane: Lane) -> EndCall:
        if left_s is not None and left_s < 10:
            note_overload()
        return await begin(self, tenant, left_s, lane)

    monkeypatch.setattr(Admission, "begin", wait)
    gate = Gate()
    gate.gate.set()
    async with (
        running([gate.registration()]) as address,
        ServiceChannel(address) as channel,
    ):
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel.grpc_channel)
        for timeout_s in (20, 5, 20):
            await stub.Embed(embedding_pb2.EmbedRequest(), timeout=timeout_s)
    assert gate.left_out == [False, True, False]
    assert not leave_out("monitor")


def nested_filter(depth: int) -> bytes:
    """Returns the bytes of a CountItemsRequest whose filter is `not` of `not` of …"""
    inner = b""
    number = types_pb2.Filter.DESCRIPTOR.fields_by_name["not"].number
    for _ in range(depth):
        inner = field_of(number, inner)
    number = retrieval_pb2.CountItemsRequest.DESCRIPTOR.fields_by_name["filter"].number
    return field_of(number, inner)


def field_of(number: int, data: bytes) -> bytes:
    size, left = bytearray(), len(data)
    while left > 0x7F:
        size.append(left & 0x7F | 0x80)
        left >>= 7
    size.append(left)
    return bytes([number << 3 | 2]) + bytes(size) + data


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff", nested_filter(1_000), field_of(1, b"\xff\xfe")],
    ids=["damaged", "nested", "not UTF-8"],
)  # fmt: skip
async def test_a_request_that_cannot_be_decoded_is_invalid(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    servicer = retrieval_pb2_grpc.RetrievalServiceServicer()
    service = Registration(
        "nearline.v1.RetrievalService",
        lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server),
    )
    async with running([service]) as address, grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/nearline.v1.RetrievalService/CountItems")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(data, timeout=10)
    error = status.from_rpc_error(caught.value, address)
    assert type(error) is InvalidRequest
    assert "not a request of CountItems" in error.message
    assert "proto files" in error.message
    assert not caplog.records


async def test_a_message_of_a_stream_that_cannot_be_decoded_is_invalid() -> None:
    async with running([Gate().registration()]) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            method: Any = channel.stream_stream("/nearline.v1.EmbeddingService/EmbedStream")
            call = method(timeout=10)
            await call.write(b"")
            assert await call.read() == b""
            await call.write(b"\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
    assert type(status.from_rpc_error(caught.value, address)) is InvalidRequest


async def test_health_and_reflection_are_there_before_the_service_is_ready() -> None:
    loaded, go = asyncio.Event(), asyncio.Event()
    config = ServerSettings.load({"port": free_port(), "drain_s": 0})

    async def ready() -> None:
        loaded.set()
        await go.wait()

    server = asyncio.create_task(serve(config, [Gate().registration()], ready=ready))
    await loaded.wait()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{config.port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
        async for seen in health.Watch(health_pb2.HealthCheckRequest(), timeout=10):
            assert seen.status == health_pb2.HealthCheckResponse.NOT_SERVING
            break
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        async for listed in stub.ServerReflectionInfo(iter(asked), timeout=10):
            names = [one.name for one in listed.list_services_response.service]
        assert "nearline.v1.EmbeddingService" in names and "grpc.health.v1.Health" in names
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_what_is_no_request_of_grpcs_own_services_is_invalid(path: str) -> None:
    async with running([Gate().registration()]) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_stream(path)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call(b"\x0a\x05\xff", timeout=10):
                    pass
    assert type(status.from_rpc_error(caught.value, address)) is InvalidRequest


@pytest.mark.parametrize("path", ["/nearline.v1.EmbeddingService/Nothing", "/x", "/../../etc"])
async def test_an_unknown_method_is_unsupported_and_names_what_there_is(path: str) -> None:
    async with running([Gate().registration()]) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(path)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=10)
    error = status.from_rpc_error(caught.value, address)
    assert type(error) is Unsupported
    assert f"no method {path!r}" in error.message
    assert "this server has nearline.v1.EmbeddingService" in error.message


@pytest.mark.parametrize(
    "method",
    [
        "/nearline.v1.EmbeddingService/EmbedStream",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_a_stream_that_sends_nothing_is_ended(method: str) -> None:
    settings = ServerSettings(stream_idle_s=0.05)
    async with running([Gate().registration()], settings=settings) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.stream_stream(method)(timeout=10)
            await call.write(b"")
            await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
    error = status.from_rpc_error(caught.value, address)
    assert type(error) is DeadlineExceeded
    assert "sent no request for 0.05 s" in error.message and "--stream-idle-s" in error.message
