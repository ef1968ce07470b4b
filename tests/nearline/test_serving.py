"""The life cycle of a server: readiness, drain, lifeline, ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearline import status
from nearline.access.access_control import AccessControl
from nearline.access.caller_file import CallerFile
from nearline.calls.guard import Context
from nearline.clients import EmbeddingClient, GenerationClient
from nearline.errors import DeadlineExceeded, NotReady, SettingsError, Unsupported
from nearline.serving import (
    LIFELINE_VARIABLE,
    Registration,
    _check_exposure,
    running,
    serve,
)
from nearline.settings import ServerSettings
from nearline.thread_priority import use_batch_scheduling
from nearline.tls import TlsFiles
from nearline.v1 import embedding_pb2, embedding_pb2_grpc
from nearline_cli.local.processes import free_port


class Gate(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Answers GetInfo once its gate is open."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def GetInfo(
        self, request: embedding_pb2.GetInfoRequest, context: Context
    ) -> embedding_pb2.GetInfoResponse:
        self.entered.set()
        await self.gate.wait()
        return embedding_pb2.GetInfoResponse(model="gate")

    def registration(self) -> Registration:
        return Registration(
            "nearline.v1.EmbeddingService",
            lambda server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self, server),
        )


async def health_is(address: str, wanted: int) -> None:
    """Waits for a health state of the embedding service, with a health watch."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="nearline.v1.EmbeddingService")
        async for reply in stub.Watch(request, wait_for_ready=True, timeout=10):
            if reply.status == wanted:
                return


async def test_calls_are_refused_until_ready_and_calls_in_flight_finish_after_sigterm() -> None:
    gate, loaded = Gate(), asyncio.Event()
    settings = ServerSettings.load({"port": free_port(), "drain_s": 0.3})
    address = f"127.0.0.1:{settings.port}"
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    server = asyncio.create_task(
        serve(settings, [gate.registration()], ready=loaded.wait, close=close)  # type: ignore[arg-type]
    )
    await health_is(address, health_pb2.HealthCheckResponse.NOT_SERVING)
    async with EmbeddingClient(address) as client:
        with pytest.raises(NotReady, match="still loading"):
            await client.info()
        loaded.set()
        await health_is(address, health_pb2.HealthCheckResponse.SERVING)
        call = asyncio.create_task(client.info())
        await gate.entered.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await health_is(address, health_pb2.HealthCheckResponse.NOT_SERVING)
        gate.gate.set()
        assert (await call).model == "gate"
    await asyncio.wait_for(server, 10)
    assert closed == [True]


async def test_a_stopping_server_refuses_calls_it_had_not_begun_as_not_ready() -> None:
    gate, request = Gate(), embedding_pb2.GetInfoRequest()
    async with contextlib.AsyncExitStack() as server:
        address = await server.enter_async_context(running([gate.registration()]))
        # A plain channel: a ServiceChannel would retry.
        async with grpc.aio.insecure_channel(address) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            calls = [stub.GetInfo(request, timeout=10) for _ in range(300)]
            # They arrive together and begin one by one.
            await gate.entered.wait()
            gate.gate.set()
            await server.aclose()
            ends = await asyncio.gather(*calls, return_exceptions=True)
    errors = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    answers = [end for end in ends if isinstance(end, embedding_pb2.GetInfoResponse)]
    assert errors
    assert len(errors) + len(answers) == 300
    for error in errors:
        assert type(status.from_rpc_error(error, address)) is NotReady


async def test_a_call_that_a_stopping_server_had_not_begun_is_retried_elsewhere() -> None:
    class Stopping(Gate):
        async def GetInfo(
            self, request: embedding_pb2.GetInfoRequest, context: Context
        ) -> embedding_pb2.GetInfoResponse:
            # Until the client is connected to the other server, there is no elsewhere.
            if not good.entered.is_set():
                return embedding_pb2.GetInfoResponse(model="gate")
            self.entered.set()
            await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")

    stopping, good = Stopping(), Gate()
    good.gate.set()
    async with (
        running([stopping.registration()]) as one,
        running([good.registration()]) as other,
        EmbeddingClient(f"ipv4:{one},{other}") as client,
        asyncio.timeout(10),
    ):
        while not (stopping.entered.is_set() and good.entered.is_set()):
            assert (await client.info()).model == "gate"


async def test_a_server_ends_when_its_supervisor_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setenv(LIFELINE_VARIABLE, str(read_end))
    settings = ServerSettings.load({"port": free_port(), "drain_s": 0})

    async def ready() -> None:
        os.close(write_end)

    await asyncio.wait_for(serve(settings, [Gate().registration()], ready=ready), 10)
    os.close(read_end)


async def test_a_server_whose_loading_fails_raises_the_error_and_frees_its_port() -> None:
    settings = ServerSettings.load({"port": free_port()})

    async def ready() -> None:
        raise NotReady("no model")

    for _ in range(2):
        with pytest.raises(NotReady, match="no model"):
            await serve(settings, [Gate().registration()], ready=ready)


async def test_a_port_in_use_is_named_with_the_remedy() -> None:
    async def ready() -> None:
        return None

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"{port}.*--port"):
            await serve(ServerSettings.load({"port": port}), [], ready=ready)


async def test_a_call_past_its_deadline_is_deadline_exceeded_at_the_client() -> None:
    gate = Gate()
    async with running([gate.registration()]) as address:
        channel = grpc.aio.insecure_channel(address)
        client = EmbeddingClient(address)
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        request = embedding_pb2.GetInfoRequest()
        with pytest.raises(DeadlineExceeded, match="raise the timeout"):
            await client.call(lambda: stub.GetInfo(request, timeout=0.05))
        await client.close()
        await channel.close()


async def test_a_missing_method_is_unimplemented_and_the_request_id_is_returned() -> None:
    async with running([Gate().registration()]) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Rerank(
                    embedding_pb2.RerankRequest(), metadata=(("x-request-id", "abc"),)
                )
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert ("x-request-id", "abc") in list(caught.value.trailing_metadata() or ())


async def test_calling_the_port_of_another_service_names_the_problem() -> None:
    async with running([Gate().registration()]) as address, GenerationClient(address) as client:
        with pytest.raises(Unsupported, match="check that the port is the right service's"):
            await client.session("s")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux schedules batch work")
def test_threads_started_afterwards_are_scheduled_as_batch_work() -> None:
    def policies() -> tuple[int, int]:
        use_batch_scheduling()
        with ThreadPoolExecutor(1) as later:
            return os.sched_getscheduler(0), later.submit(os.sched_getscheduler, 0).result()

    with ThreadPoolExecutor(1) as apart:
        assert apart.submit(policies).result() == (os.SCHED_BATCH, os.SCHED_BATCH)
    assert os.sched_getscheduler(0) != os.SCHED_BATCH


@pytest.mark.parametrize(
    ("host", "tls", "required", "missing"),
    [
        ("127.0.0.1", False, False, ""),
        ("localhost", False, False, ""),
        ("::1", False, False, ""),
        ("0.0.0.0", True, True, ""),
        ("0.0.0.0", False, True, "no TLS"),
        ("0.0.0.0", True, False, "no credentials"),
        ("10.0.0.1", False, False, "no TLS .* and no credentials"),
        ("router", False, False, "no TLS .* and no credentials"),
    ],
)
def test_off_loopback_a_service_needs_tls_and_credentials(
    host: str, tls: bool, required: bool, missing: str
) -> None:
    access = AccessControl(callers=CallerFile({})) if required else AccessControl()
    files = TlsFiles("cert.pem", "key.pem") if tls else TlsFiles()
    if missing:
        with pytest.raises(SettingsError, match=f"{host} is not a loopback .*{missing}"):
            _check_exposure(ServerSettings(host=host), access, files)
    else:
        _check_exposure(ServerSettings(host=host), access, files)
    _check_exposure(ServerSettings(host=host, insecure=True), access, files)
