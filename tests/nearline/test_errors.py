"""Errors keep class, text, field and delay across a real server; other exceptions never leak."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from urllib.parse import quote

import grpc
import pytest
from hypothesis import given, strategies as st

from nearline import errors, status
from nearline.calls.guard import Context
from nearline.clients import EmbeddingClient
from nearline.errors import NearlineError
from nearline.serving import Registration, running
from nearline.v1 import embedding_pb2, embedding_pb2_grpc
from tests.loopback_server import loopback_server

WIRE_ERRORS = [
    errors.InvalidRequest("k is 0; needed 1..10000", field="options.k"),
    errors.Unauthenticated("no token"),
    errors.PermissionDenied("a key to read"),
    errors.NotFound("no item 7"),
    errors.AlreadyExists("epoch 3 exists"),
    errors.Overloaded("queue full", retry_after_s=1.25),
    errors.FeedBlocked("Redis has 1 MiB free"),
    errors.NotReady("loading"),
    errors.ShardsUnavailable("shard 2 of 4"),
    errors.NotApplied("3 changes behind", retry_after_s=1.0),
    errors.SnapshotMismatch("dim 384, query 768"),
    errors.GateFailed("recall"),
    errors.SnapshotGone("s1"),
    errors.Conflict("epoch moved"),
    errors.SnapshotCorrupt("dense.faiss"),
    errors.Unsupported("no filters"),
    errors.DeadlineExceeded("too late"),
    errors.InternalError("internal error 12ab"),
]


class Raiser(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Raises a given error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def GetInfo(
        self, request: embedding_pb2.GetInfoRequest, context: Context
    ) -> embedding_pb2.GetInfoResponse:
        raise self.error

    async def EmbedStream(
        self, request_iterator: object, context: Context
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        raise self.error
        yield embedding_pb2.EmbedStreamResponse()  # pragma: no cover - makes this a generator


def registration(error: Exception) -> Registration:
    return Registration(
        "nearline.v1.EmbeddingService",
        lambda server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            Raiser(error), server
        ),
    )


@pytest.mark.parametrize("error", WIRE_ERRORS, ids=lambda e: type(e).__name__)
async def test_client_raises_the_class_that_the_server_raised(error: NearlineError) -> None:
    async with running([registration(error)]) as address, EmbeddingClient(address) as client:
        with pytest.raises(type(error)) as caught:
            await client.info()
    assert type(caught.value) is type(error)
    assert caught.value.message == error.message
    assert caught.value.field == error.field
    assert caught.value.retry_after_s == error.retry_after_s


async def test_a_stream_raises_the_class_that_the_server_raised() -> None:
    async def no_batches() -> AsyncIterator[list[str]]:
        return
        yield []  # pragma: no cover - makes this a generator

    error = errors.Overloaded("queue full", retry_after_s=0.5)
    async with running([registration(error)]) as address, EmbeddingClient(address) as client:
        with pytest.raises(errors.Overloaded) as caught:
            async for _ in client.embed_stream(no_batches()):
                pass
    assert caught.value.retry_after_s == 0.5


async def test_an_unexpected_error_reaches_the_client_as_an_id_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    secret = RuntimeError("password=hunter2")
    async with running([registration(secret)]) as address, EmbeddingClient(address) as client:
        with pytest.raises(errors.InternalError, match=r"internal error [0-9a-f]{16}") as caught:
            await client.info()
    assert "hunter2" not in caught.value.message
    assert any(r.exc_info and r.exc_info[1] is secret for r in caplog.records)


LONG = 20_000


@pytest.mark.parametrize(
    "value",
    ["x" * LONG, "a b " * LONG, "'" * LONG, '"' * LONG, "\\" * LONG, "\n" * LONG, "日本" * LONG],
    ids=["letters", "words", "quotes", "double quotes", "backslashes", "lines", "wide"],
)
def test_a_message_shows_only_the_beginning_of_a_long_value(value: str) -> None:
    error = errors.InvalidRequest(f"item {value!r} isn't known; use one of 'a', 'b'", field=value)
    assert len(error.message) < 300
    assert error.message.startswith(f"item {value!r}"[:150])
    assert f" ({len(repr(value)):,} characters) " in error.message
    assert error.message.endswith("isn't known; use one of 'a', 'b'")
    assert len(error.field) <= 200
    bare = errors.InvalidRequest(f"k is {10**4_000 - 1}; 1..3 is allowed")
    assert len(bare.message) < 300 and bare.message.endswith("1..3 is allowed")
    # The text of a received error does not change again.
    assert errors.InvalidRequest(error.message).message == error.message


def test_explanations_of_any_length_are_kept() -> None:
    text = "the shard's text isn't 'red'; " * 20
    assert errors.NotFound(text).message == text


@given(
    st.text(max_size=3_000) | st.text("日%\n ", max_size=9_000),
    st.text(max_size=300),
    st.none() | st.floats(0.001, 100),
)
def test_the_trailers_of_an_error_stay_small(
    message: str, field: str, retry_after_s: float | None
) -> None:
    error = errors.Overloaded(message, field=field, retry_after_s=retry_after_s)
    sent = quote(status.wire_message(error), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}").encode()
    trailers = status.to_trailers(error)
    size = len(sent) + sum(
        len(key) + 32 + (len(value) * 4 // 3 + 4 if isinstance(value, bytes) else len(value))
        for key, value in trailers
    )
    assert size < 4_096 - 200


async def test_an_error_about_a_long_id_arrives_as_what_it_is() -> None:
    error = errors.InvalidRequest(
        "".join(f"item {'日' * 180!r} is unknown; " for _ in range(100)) + "send others",
        field="ids",
    )
    async with running([registration(error)]) as address, EmbeddingClient(address) as client:
        with pytest.raises(errors.InvalidRequest) as caught:
            await client.info()
    assert caught.value.message.startswith("item '日日")
    assert caught.value.message.endswith("send others")
    assert caught.value.field == "ids"


async def test_a_long_request_id_is_cut() -> None:
    error = errors.NotFound("no item")
    async with running([registration(error)]) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetInfo(
                    embedding_pb2.GetInfoRequest(), metadata=(("x-request-id", "i" * 7_000),)
                )
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers["x-request-id"] == "i" * 128


async def test_the_death_of_a_server_during_a_call_is_told_apart_from_no_connection() -> None:
    async with EmbeddingClient("127.0.0.1:1") as client:
        with pytest.raises(errors.NotReady) as caught:
            await client.info()
    assert not caught.value.peer_died

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # An HTTP/2 server that takes the call and then goes away.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            await writer.drain()
            calls.append(await reader.readuntil(b"GetInfo"))
        writer.close()

    calls: list[bytes] = []
    async with loopback_server(drop) as port, EmbeddingClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(errors.NotReady) as caught:
            await client.info()
    assert caught.value.peer_died
    # The call is repeated once, since another server may answer under the same name.
    assert len(calls) <= 2


async def test_clients_do_not_repeat_a_call_that_a_server_behind_the_service_died_of() -> None:
    calls: list[str] = []

    class Dying(Raiser):
        async def GetInfo(
            self, request: embedding_pb2.GetInfoRequest, context: Context
        ) -> embedding_pb2.GetInfoResponse:
            calls.append("GetInfo")
            raise self.error

    dying = Dying(errors.ShardsUnavailable("shard 0 is lost", peer_died=True))
    service = Registration(
        "nearline.v1.EmbeddingService",
        lambda server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(dying, server),
    )
    async with running([service]) as address, EmbeddingClient(address) as client:
        with pytest.raises(errors.ShardsUnavailable) as caught:
            await client.info()
    assert caught.value.peer_died
    assert calls == ["GetInfo"]


async def test_a_dead_address_is_not_ready_and_names_the_address() -> None:
    async with EmbeddingClient("127.0.0.1:1") as client:
        with pytest.raises(errors.NotReady, match=r"127\.0\.0\.1:1 does not answer"):
            await client.info()


def test_every_status_of_the_tree_is_a_grpc_code_and_every_reason_is_unique() -> None:
    kinds = [type(error) for error in WIRE_ERRORS]
    assert all(kind.status in grpc.StatusCode.__members__ for kind in kinds)
    assert len({kind.reason for kind in kinds}) == len(kinds)
    public = {getattr(errors, name) for name in errors.__all__}
    assert public == {*kinds, NearlineError, errors.SettingsError, errors.StoreError}


def test_overload_carries_the_pushback_that_grpc_retry_obeys() -> None:
    trailers = dict(status.to_trailers(errors.Overloaded("full", retry_after_s=0.25)))
    assert trailers["grpc-retry-pushback-ms"] == "250"


def test_a_message_with_a_value_of_many_megabytes_is_cut_at_once() -> None:
    value = "x y '" * 8_000_000
    start = time.process_time()
    error = errors.InvalidRequest(f"found {value}; send less")
    shown = status.wire_message(error)
    assert time.process_time() - start < 1.0
    assert shown.startswith("found x y ") and shown.endswith("; send less")
    assert len(shown) < status.MAX_STATUS_BYTES
    named = errors.NotFound(f"no item {value!r} is known")
    assert named.message.startswith("no item ") and named.message.endswith(" is known")
    assert len(named.message) < 300 and "(40,000,002 characters)" in named.message


async def test_a_message_over_the_limit_is_invalid_and_not_an_overload() -> None:
    async with (
        running([registration(errors.NotReady("no"))]) as address,
        EmbeddingClient(address) as client,
    ):
        with pytest.raises(errors.InvalidRequest, match=r"too large .*; send less") as caught:
            await client.embed(["x" * (64 << 20)])
    assert caught.value.retry_after_s is None


async def test_the_first_error_of_a_stream_reaches_a_caller_who_goes_on_sending() -> None:
    sent = 0

    async def batches() -> AsyncIterator[list[str]]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield ["x"]

    error = errors.SnapshotMismatch("another model")
    async with running([registration(error)]) as address, EmbeddingClient(address) as client:
        with pytest.raises((errors.SnapshotMismatch, errors.NotReady)) as caught:
            async for _ in client.embed_stream(batches()):
                pass
    # gRPC loses one in a hundred; the caller then learns that it did.
    assert "another model" in str(caught.value) or "gRPC lost its reason" in str(caught.value)
    assert sent < 10


async def test_an_error_of_the_batches_reaches_the_caller_of_a_stream() -> None:
    async def batches() -> AsyncIterator[list[str]]:
        raise ZeroDivisionError
        yield []  # pragma: no cover - makes this a generator

    class Patient(Raiser):
        async def EmbedStream(
            self, request_iterator: object, context: Context
        ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
            await asyncio.sleep(20)
            yield embedding_pb2.EmbedStreamResponse()

    patient = Registration(
        "nearline.v1.EmbeddingService",
        lambda server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            Patient(errors.NotReady("")), server
        ),
    )
    async with running([patient]) as address, EmbeddingClient(address) as client:
        with pytest.raises(ZeroDivisionError):
            async for _ in client.embed_stream(batches()):
                pass
