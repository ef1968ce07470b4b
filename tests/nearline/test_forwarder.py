"""Calls that a server passes on: all kinds, with what belongs to them, and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio

from nearline import status
from nearline.channel import ServiceChannel
from nearline.errors import NearlineError, NotFound, NotReady, Overloaded, Unsupported
from nearline.serving import running
from nearline.settings import ServerSettings
from nearline.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from nearline_cli.local.processes import free_port
from tests.nearline.doors import BLOCK, CROWD, MANY, Behind, front

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
EMBED = embedding_pb2.EmbedRequest(texts=["kettle"])
QUESTION = generation_pb2.GenerateRequest(question="?")
OTHERS = ("nearline.internal.v1.ShardService", "nearline.v1.ShardService")
BATCH = embedding_pb2.EmbedStreamRequest(request=EMBED)


@dataclass
class Doors:
    """A server, the one behind it, and a channel to the first."""

    address: str
    behind_address: str
    behind: Behind
    channel: Any

    @property
    def embedding(self) -> Any:
        return embedding_pb2_grpc.EmbeddingServiceStub(self.channel)

    @property
    def generation(self) -> Any:
        return generation_pb2_grpc.GenerationServiceStub(self.channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="servers")
async def give_servers() -> AsyncIterator[Doors]:
    behind = Behind()
    settings = ServerSettings(max_calls=8)
    async with (
        running(behind.registrations) as behind_address,
        front(behind_address, settings) as address,
        # A plain channel: it repeats nothing.
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Doors(address, behind_address, behind, channel)


@pytest.fixture(name="doors")
def give_doors(servers: Doors) -> Doors:
    """Returns the servers as they were at the beginning."""
    servers.behind.__init__()  # type: ignore[misc]
    return servers


async def failure(call: Any, address: str) -> NearlineError:
    """Returns the error of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return status.from_rpc_error(raised.value, address)


async def test_a_call_carries_its_metadata_and_deadline_there_and_its_trailers_back(
    doors: Doors,
) -> None:
    sent = (
        ("authorization", "Bearer token"),
        ("x-request-id", "r1"),
        ("nearline-lane", "bulk"),
        ("nearline-caller-bin", b"\x00\xff"),
    )
    call = doors.embedding.Embed(EMBED, timeout=100, metadata=sent)
    assert (await call).fingerprint == "kettle"
    assert dict(sent).items() <= doors.behind.metadata.items()
    # On its way, gRPC rounds what is left of such a deadline up to a second, once for each hop.
    assert doors.behind.left_s is not None and 80 < doors.behind.left_s <= 102
    assert ("behind", "yes") in tuple(await call.trailing_metadata())
    await doors.embedding.Embed(EMBED)
    assert doors.behind.left_s is None


async def test_streams_of_requests_and_of_replies_pass(doors: Doors) -> None:
    call = doors.embedding.EmbedStream(timeout=20)
    for text in ("a", "b", "c"):
        request = embedding_pb2.EmbedRequest(texts=[text])
        await call.write(embedding_pb2.EmbedStreamRequest(request=request))
        # Each reply comes while the stream of requests is open.
        assert (await call.read()).response.fingerprint == text
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert ("behind", "yes") in tuple(await call.trailing_metadata())
    replies = doors.generation.Generate(QUESTION, timeout=20)
    assert len([one async for one in replies]) == MANY
    # A stream of requests with one reply.
    path = "/nearline.v1.EmbeddingService/EmbedStream"
    one_reply = doors.channel.stream_unary(path)(iter([BATCH.SerializeToString()]), timeout=20)
    assert b"kettle" in await one_reply


async def test_an_error_comes_back_with_its_details_and_its_request_id(doors: Doors) -> None:
    doors.behind.failure = NotFound("no such model", field="model", retry_after_s=2.0)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await doors.embedding.Embed(EMBED, metadata=(("x-request-id", "r1"),))
    found = status.from_rpc_error(raised.value, doors.address)
    assert type(found) is NotFound
    assert (found.message, found.field, found.retry_after_s) == ("no such model", "model", 2.0)
    assert ("x-request-id", "r1") in tuple(raised.value.trailing_metadata() or ())


async def test_a_stream_that_fails_midway_keeps_the_replies_before_it(doors: Doors) -> None:
    doors.behind.failure = NotFound("the model is gone")
    call = doors.embedding.EmbedStream(iter([BATCH]), timeout=20)
    assert (await call.read()).response.fingerprint == "kettle"
    assert type(await failure(call.read(), doors.address)) is NotFound


@pytest.mark.parametrize("streams", [False, True])
async def test_a_caller_that_gives_up_ends_the_call_behind(doors: Doors, streams: bool) -> None:
    doors.behind.go.clear()
    call = doors.embedding.EmbedStream() if streams else doors.embedding.Embed(EMBED)
    # A call that nobody awaits is sent all the same.
    waiting = asyncio.ensure_future(call.read() if streams else call.code())
    async with asyncio.timeout(10):
        await doors.behind.began.wait()
        call.cancel()
        await doors.behind.cancelled.wait()
    await asyncio.wait([waiting])


async def test_a_deadline_that_passes_ends_the_call_behind(doors: Doors) -> None:
    doors.behind.go.clear()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await doors.embedding.Embed(EMBED, timeout=0.2)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        await doors.behind.cancelled.wait()


async def test_replies_that_nobody_reads_stay_where_they_are_made(doors: Doors) -> None:
    call = doors.generation.Generate(QUESTION)
    assert (await call.read()).delta.text.startswith("0 ")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(doors.behind.many.wait(), 0.5)
    call.cancel()


async def test_requests_that_nobody_reads_stay_with_their_sender(doors: Doors) -> None:
    doors.behind.go.clear()
    call = doors.embedding.EmbedStream()
    large = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(texts=[BLOCK]))

    async def send() -> None:
        for _ in range(MANY):
            await call.write(large)

    sending = asyncio.create_task(send())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sending, 0.5)
    call.cancel()


async def test_calls_beyond_the_bound_are_refused_and_take_no_place_from_searches(
    doors: Doors,
) -> None:
    doors.behind.go.clear()

    def embed(token: str) -> Any:
        metadata = (("authorization", token),)
        return doors.embedding.Embed(EMBED, timeout=20, metadata=metadata)

    # Half of --max-calls for one caller, and all of them for two.
    held = [asyncio.ensure_future(embed(token).code()) for token in "aaaabbbb"]
    refused = await failure(embed("a"), doors.address)
    assert type(refused) is Overloaded and "4 of them for this caller" in refused.message
    assert refused.retry_after_s == 0.25
    refused = await failure(embed("c"), doors.address)
    assert type(refused) is Overloaded and "8 calls are being passed on" in refused.message
    search = retrieval_pb2_grpc.RetrievalServiceStub(doors.channel).Search
    await search(retrieval_pb2.SearchRequest(), timeout=20)
    doors.behind.go.set()
    assert set(await asyncio.gather(*held)) == {grpc.StatusCode.OK}
    await embed("a")


async def test_calls_do_not_wait_behind_those_of_others_on_one_connection() -> None:
    behind = Behind()
    behind.go.clear()
    async with (
        running(behind.registrations, settings=ServerSettings(max_streams=2)) as inside,
        front(inside) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        calls = [asyncio.ensure_future(stub.Embed(EMBED, timeout=20).code()) for _ in range(CROWD)]
        # A connection to the service takes two of them.
        async with asyncio.timeout(10):
            await behind.crowded.wait()
        behind.go.set()
        assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.OK}


async def test_a_service_without_an_address_is_refused_with_the_setting(doors: Doors) -> None:
    jobs = ingest_pb2_grpc.IngestServiceStub(doors.channel)
    refused = await failure(jobs.GetQueue(ingest_pb2.GetQueueRequest()), doors.address)
    assert type(refused) is Unsupported
    assert "start it with --ingest HOST:PORT" in refused.message


async def test_a_service_that_is_away_is_named_with_its_address_and_setting() -> None:
    gone = f"127.0.0.1:{free_port()}"
    async with front(gone) as address, ServiceChannel(address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel.grpc_channel)
        with pytest.raises(NotReady, match=f"EmbeddingService at {gone}.*--embedding.*not answer"):
            await channel.send(stub.Embed, EMBED)


async def test_what_only_services_ask_each_other_is_not_passed_on(doors: Doors) -> None:
    for service in (*OTHERS, "nearline.v1.EmbeddingServiceX"):
        call = doors.channel.unary_unary(f"/{service}/GetInfo")(b"")
        assert "this server has" in (await failure(call, doors.address)).message


async def test_a_method_that_only_the_service_behind_may_know_reaches_it(doors: Doors) -> None:
    better = doors.channel.unary_unary("/nearline.v1.EmbeddingService/EmbedBetter")
    refused = await failure(better(b""), doors.address)
    # It is passed on as a stream, whose refusal gRPC sometimes loses (grpc/grpc#36066).
    for _ in range(20):
        if "gRPC lost its reason" not in refused.message:
            break
        refused = await failure(better(b""), doors.address)
    assert type(refused) is Unsupported
    assert "no method '/nearline.v1.EmbeddingService/EmbedBetter'" in refused.message


async def test_a_router_is_not_passed_calls_of_another_router(doors: Doors) -> None:
    async with front(doors.address) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        refused = await failure(stub.Embed(EMBED), address)
    assert type(refused) is Unsupported and "which is a router, too" in refused.message
