"""Peers that send too much, read nothing, or do not say who they are, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import weakref
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.workloads.hostile_peer import HostilePeer
from nearline import admission, forwarder, status
from nearline.access.caller import Caller
from nearline.access.caller_file import CallerFile
from nearline.access.rights import Right
from nearline.calls import health_servicer, request_reader
from nearline.errors import InvalidRequest, Overloaded, Unauthenticated
from nearline.serving import Registration, running, serve
from nearline.settings import ServerSettings
from nearline.v1 import embedding_pb2, retrieval_pb2, retrieval_pb2_grpc
from nearline_cli.local.processes import free_port
from tests import waits
from tests.nearline.doors import EMBEDDING, MANY, Behind, front

pytestmark = pytest.mark.service
until = partial(waits.until, timeout_s=20)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
GET = "/nearline.v1.RetrievalService/GetItems"
GENERATE = "/nearline.v1.GenerationService/Generate"
UPSERT = "/nearline.v1.RetrievalService/UpsertItems"
REPLY = retrieval_pb2.GetItemsResponse(items=[{"id": "x" * (8 << 20)}])
KNOWN = CallerFile(
    {
        sha256(tenant.encode()).hexdigest(): Caller(tenant, rights={"*": Right.WRITE}, name=tenant)
        for tenant in ("a", "b")
    }
)


class Large(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers with 8 MiB; takes writes, once it may. began, written, streamed: Calls of each."""

    def __init__(self) -> None:
        self.began = self.written = self.streamed = 0
        self.go = asyncio.Event()
        self.go.set()

    async def GetItems(self, request: Any, context: Any) -> retrieval_pb2.GetItemsResponse:
        self.began += 1
        return REPLY

    async def UpsertItems(self, request: Any, context: Any) -> retrieval_pb2.UpsertItemsResponse:
        self.written += 1
        await self.go.wait()
        return retrieval_pb2.UpsertItemsResponse()

    async def UpsertItemsStream(
        self, requests: Any, context: Any
    ) -> retrieval_pb2.UpsertItemsStreamResponse:
        async for _ in requests:
            self.streamed += 1
        return retrieval_pb2.UpsertItemsStreamResponse()

    def registration(self) -> Registration:
        return Registration(
            "nearline.v1.RetrievalService",
            lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(self, server),
        )


def channel_to(address: str) -> Any:
    sizes = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    return grpc.aio.insecure_channel(address, sizes)


def bearer(tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer {tenant}"}


async def call(
    address: str, path: str, request: bytes = b"", tenant: str = "a", **options: Any
) -> str:
    """Calls a method; returns the name of the status."""
    async with channel_to(address) as channel:
        metadata = tuple(bearer(tenant).items())
        one = channel.unary_unary(path)(request, timeout=20, metadata=metadata, **options)
        return str((await one.code()).name)


async def serves(address: str, service: str = "", wanted: int = SERVING) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        reply = await stub.Check(request, timeout=10, wait_for_ready=True)
        return bool(reply.status == wanted)


@pytest.mark.parametrize(
    "service", ["RetrievalService/Search", "EmbeddingService/Embed", "GenerationService/Generate"]
)
async def test_a_stranger_is_refused_before_the_request_is_read(service: str) -> None:
    path = f"/nearline.v1.{service}"
    async with (
        running(Behind().registrations) as behind,
        front(behind, callers=KNOWN) as address,
        channel_to(address) as channel,
    ):
        # It sends no request at all: a server that reads first would wait for one.
        call = channel.stream_unary(path)(timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert type(status.from_rpc_error(refused.value, address)) is Unauthenticated
        for _ in range(10):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(path)(b"\x12\x00" * (16 << 20), timeout=10)
            assert type(status.from_rpc_error(refused.value, address)) is Unauthenticated


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_request_is_refused(algorithm: grpc.Compression) -> None:
    large = Large()
    async with running([large.registration()], callers=KNOWN) as address:
        data = b"\x12\x00" * (1 << 20)
        assert await call(address, UPSERT, data, compression=algorithm) == "UNIMPLEMENTED"
        assert not large.written
        assert await call(address, UPSERT, data) == "OK"


@pytest.mark.parametrize("path", [GET, HEALTH])
async def test_only_methods_that_carry_batches_take_large_requests(path: str) -> None:
    large = Large()
    async with (
        running([large.registration()], callers=KNOWN) as address,
        channel_to(address) as channel,
    ):
        data = b"\x0a\x00" * (3 << 20)
        metadata = tuple(bearer("a").items())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path)(data, timeout=10, metadata=metadata)
        error = status.from_rpc_error(refused.value, address)
        assert type(error) is InvalidRequest and "6,291,456 bytes" in error.message
        assert not large.began
        assert await call(address, UPSERT, b"\x12\x00" * (3 << 20)) == "OK"


async def test_watchers_that_read_nothing_delay_neither_start_nor_stop() -> None:
    loaded = asyncio.Event()
    settings = ServerSettings.load({"port": free_port(), "drain_s": 0.1, "grace_s": 0.2})
    address = f"127.0.0.1:{settings.port}"

    async def ready() -> None:
        await loaded.wait()

    server = asyncio.create_task(serve(settings, [Large().registration()], ready=ready))
    await until(lambda: serves(address, wanted=NOT_SERVING))
    with HostilePeer(address) as peer:
        for _ in range(40):
            peer.call(WATCH, b"")
        await asyncio.to_thread(peer.settle)
        loaded.set()
        await until(lambda: serves(address))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(server, 10)


async def test_watchers_are_woken_by_changes_alone() -> None:
    looks: list[str] = []

    class Request:
        @property
        def service(self) -> str:
            looks.append("")
            return ""

    health = health_servicer.HealthServicer()
    health.set("", SERVING)
    watch: Any = health.Watch(cast(Any, Request()), cast(Any, None))
    assert (await anext(watch)).status == SERVING
    following = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    before = len(looks)
    # As a router does each second, for each service behind it.
    health.set("", SERVING)
    await asyncio.sleep(0)
    assert len(looks) == before
    health.set("", NOT_SERVING)
    assert (await following).status == NOT_SERVING


async def test_callers_that_cancel_without_end_do_not_delay_the_stop() -> None:
    settings = ServerSettings.load({"port": free_port(), "drain_s": 0.1, "grace_s": 0.2})
    address = f"127.0.0.1:{settings.port}"
    stopped = asyncio.Event()

    async def ready() -> None:
        pass

    server = asyncio.create_task(serve(settings, [Large().registration()], ready=ready))
    await until(lambda: serves(address))
    with HostilePeer(address) as peer:

        def cancel() -> None:
            with contextlib.suppress(OSError):
                while not stopped.is_set():
                    peer.reset(peer.begin(HEALTH))

        async def is_blocked() -> bool:
            # What the server answers is not read, so at last it reads no more, either.
            before = peer.sent
            await asyncio.sleep(0.5)
            return before == peer.sent > 0

        attack = asyncio.create_task(asyncio.to_thread(cancel))
        await until(is_blocked)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(server, 5)
        stopped.set()
    await attack


async def test_watchers_that_read_nothing_do_not_hide_the_health_of_a_service_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarder, "_HEALTH_EVERY_S", 0.02)
    settings = ServerSettings(port=free_port())
    name = EMBEDDING.full_name
    async with front(f"127.0.0.1:{settings.port}") as address:
        with HostilePeer(address) as peer:
            for _ in range(40):
                peer.call(WATCH, b"\x0a" + bytes((len(name),)) + name.encode())
            await asyncio.to_thread(peer.settle)
            assert await serves(address, name, NOT_SERVING)
            async with running(Behind().registrations, settings=settings):
                await until(lambda: serves(address, name))
            await until(lambda: serves(address, name, NOT_SERVING))


@pytest.mark.parametrize("service", ["RetrievalService/GetItems", "EmbeddingService/Embed"])
async def test_refusals_of_calls_that_have_ended_leave_no_tracebacks(
    service: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running(Behind().registrations) as behind,
        front(behind, callers=KNOWN) as address,
    ):
        for _ in range(20):
            with HostilePeer(address, 1 << 20) as peer:
                # gRPC itself ends calls with compressed requests.
                data = gzip.compress(bytes(1 << 20))
                await asyncio.to_thread(peer.upload, f"/nearline.v1.{service}", data, 8, "gzip")
        assert await serves(address)
    assert [one.message for one in caplog.records if one.exc_info] == []


async def test_replies_to_peers_that_have_gone_leave_no_tracebacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running([Large().registration()]) as address:
        with HostilePeer(address) as peer:
            for _ in range(50):
                peer.call(HEALTH, b"")
            # Their replies wait for its window.
            await asyncio.to_thread(peer.settle)
            assert await serves(address)
        assert await serves(address)
    assert [one.message for one in caplog.records if one.exc_info] == []


async def test_the_health_of_all_services_is_listed() -> None:
    async with running([Large().registration()]) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            reply = await stub.List(health_pb2.HealthListRequest(), timeout=10)
    states = {name: one.status for name, one in reply.statuses.items()}
    assert states == {"": SERVING, "nearline.v1.RetrievalService": SERVING}


async def test_watches_beyond_a_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_servicer, "_MOST_WATCHERS", 2)
    async with running([]) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=10) for _ in range(2)]
        for watch in watches:
            assert (await watch.read()).status == SERVING
        third = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert await third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        watches.pop().cancel()

        async def is_watched() -> bool:
            one = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
            with contextlib.suppress(grpc.aio.AioRpcError):
                return bool((await one.read()).status == SERVING)
            return False

        await until(is_watched)


@contextlib.asynccontextmanager
async def limited(large: Large, folder: Path, limits: str = "") -> AsyncIterator[str]:
    (folder / "limits.toml").write_text(limits)
    settings = ServerSettings(limits=str(folder / "limits.toml") if limits else "", grace_s=0)
    async with running([large.registration()], callers=KNOWN, settings=settings) as address:
        yield address


async def test_a_call_counts_against_the_limit_until_its_reply_is_taken(tmp_path: Path) -> None:
    large = Large()
    async with limited(large, tmp_path, "[default]\nconcurrent = 2") as address:
        with HostilePeer(address) as peer:
            for _ in range(40):
                peer.call(GET, b"", bearer("a"))
            await until(lambda: is_refused(address, "a"))
            assert large.began == 2
            assert await call(address, GET, tenant="b") == "OK"
        # Its connection is closed, and its replies are dropped.
        await until(lambda: is_answered(address, "a"))


async def test_a_tenant_whose_replies_are_not_taken_is_refused_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MOST_UNREAD_BYTES", 32 << 20)
    large = Large()
    async with limited(large, tmp_path) as address:
        with HostilePeer(address) as peer:
            for _ in range(40):
                peer.call(GET, b"", bearer("a"))
            await until(lambda: is_refused(address, "a"))
            assert large.began <= 6
            assert await call(address, GET, tenant="b") == "OK"
        await until(lambda: is_answered(address, "a"))


async def test_a_reply_that_is_not_taken_is_dropped_when_the_time_of_its_call_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MOST_UNREAD_BYTES", 8 << 20)
    async with limited(Large(), tmp_path) as address:
        with HostilePeer(address) as peer:
            peer.call(GET, b"", bearer("a") | {"grpc-timeout": "1S"})
            await until(lambda: is_refused(address, "a"))
            await until(lambda: is_answered(address, "a"))


async def test_an_answer_that_is_not_taken_keeps_no_call_of_others_waiting() -> None:
    settings = ServerSettings(max_calls=1, grace_s=0)
    text = embedding_pb2.EmbedRequest(texts=["x"]).SerializeToString()

    async def is_embedded() -> bool:
        return await call(address, f"/{EMBEDDING.full_name}/Embed", text, "b") == "OK"

    async with (
        running(Behind().registrations, callers=KNOWN, settings=settings) as address,
        channel_to(address) as channel,
    ):
        # It has no deadline.
        answer = channel.unary_stream(GENERATE)(b"", metadata=tuple(bearer("a").items()))
        replies = aiter(answer)
        await anext(replies)
        assert not await is_embedded()
        await until(is_embedded)
        # It takes its turn again once its caller reads on.
        assert len([one async for one in replies]) == MANY - 1
        await until(is_embedded)


async def is_refused(address: str, tenant: str) -> bool:
    return await call(address, UPSERT, tenant=tenant) == Overloaded.status


async def is_answered(address: str, tenant: str) -> bool:
    return await call(address, UPSERT, tenant=tenant) == "OK"


async def test_a_request_of_a_stranger_that_does_not_end_is_dropped_after_a_second() -> None:
    async with running([Large().registration()], callers=KNOWN) as address:
        with HostilePeer(address) as peer:
            await asyncio.to_thread(peer.upload, HEALTH, bytes(2 << 20), missing=1)
        assert await serves(address)


async def test_few_requests_of_a_tenant_arrive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_reader, "_LEAST_BYTES_PER_S", 4 << 20)
    async with running([Large().registration()], callers=KNOWN) as address:
        with HostilePeer(address) as peer:
            uploads = asyncio.create_task(
                asyncio.to_thread(
                    peer.upload, GET, bytes(1 << 19), calls=24, metadata=bearer("a"), missing=1
                )
            )
            assert await call(address, GET, tenant="b") == "OK"
            assert await call(address, UPSERT, tenant="a") == "OK"
            await uploads
            # Eight of them, and what windows of the others take.
            assert peer.sent < 8 << 20
        assert await call(address, GET, tenant="a") == "OK"


async def test_requests_of_a_write_stream_have_their_turn_in_the_lane_bulk() -> None:
    large = Large()
    settings = ServerSettings(max_calls=8)
    async with (
        running([large.registration()], callers=KNOWN, settings=settings) as address,
        channel_to(address) as channel,
    ):
        large.go.clear()
        # Half of the calls that may run.
        held = [asyncio.create_task(call(address, UPSERT, tenant="b")) for _ in range(4)]
        await until(lambda: large.written == 4)
        metadata = tuple(bearer("a").items())
        both = {
            asyncio.create_task(one.details()): one
            for one in [
                channel.stream_unary(f"{UPSERT}Stream")(metadata=metadata, timeout=20)
                for _ in range(2)
            ]
        }
        # Either may come first.
        (refused,), (waits,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert "1 streams of tenant 'a' are open in the lane bulk" in refused.result()
        stream = both[waits]
        await stream.write(b"")
        assert await call(address, GET) == "OK"
        assert large.streamed == 0
        large.go.set()
        await until(lambda: large.streamed == 1)
        assert await asyncio.gather(*held) == ["OK"] * 4
        # A stream that waits for its sender keeps no other write waiting.
        assert [await call(address, UPSERT, tenant="b") for _ in range(4)] == ["OK"] * 4
        stream.cancel()


async def test_a_request_of_a_stream_is_forgotten_while_the_next_one_is_awaited() -> None:
    seen: asyncio.Queue[weakref.ref[Decoded]] = asyncio.Queue()

    async def take(requests: AsyncIterator[Decoded], context: Any) -> bytes:
        async for one in requests:
            seen.put_nowait(weakref.ref(one))
            del one
        return b""

    handler = grpc.stream_unary_rpc_method_handler(take, Decoded, bytes)
    service, method = "nearline.v1.EmbeddingService", "EmbedStream"
    registration = Registration(
        service, lambda server: server.add_registered_method_handlers(service, {method: handler})
    )
    async with running([registration], callers=KNOWN) as address, channel_to(address) as channel:
        metadata = tuple(bearer("a").items())
        stream = channel.stream_unary(f"/{service}/{method}")(metadata=metadata, timeout=20)
        for _ in range(3):
            await stream.write(b"one")
            one = await asyncio.wait_for(seen.get(), 20)
            await until(partial(is_forgotten, one))
        await stream.done_writing()
        assert await stream == b""


class Decoded:
    """A decoded request."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def is_forgotten(one: weakref.ref[Decoded]) -> bool:
    return one() is None


async def test_a_flood_of_refusals_neither_fills_nor_blinds_the_audit_log(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    settings = ServerSettings(audit_log=str(log))
    embed = f"/{EMBEDDING.full_name}/"
    async with (
        running(Behind().registrations) as behind,
        front(behind, settings, callers=KNOWN) as address,
        channel_to(address) as channel,
    ):
        for path in [embed + "x" * 8_000, "/nearline.v1.RetrievalService/Search"] * 150:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(path)(b"", timeout=10)
        assert await call(address, "/nearline.v1.RetrievalService/DeleteUser") == "UNIMPLEMENTED"
    *refused, deletion = map(json.loads, log.read_text().splitlines())
    assert len(refused) == 100 and log.stat().st_size < 50_000
    assert {one["result"] for one in refused} == {"UNAUTHENTICATED"}
    assert (deletion["method"], deletion["caller"], deletion["left_out"]) == (
        "DeleteUser",
        "a",
        200,
    )
    assert not any("left_out" in one for one in refused)
