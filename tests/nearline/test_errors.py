"""Errors keep class, text, field and delay across a real server; other exceptions never leak."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import grpc
import pytest

from nearline import errors, status
from nearline.call_guard import Context
from nearline.clients import EmbeddingClient
from nearline.errors import NearlineError
from nearline.serving import Registration, running
from nearline.v1 import embedding_pb2, embedding_pb2_grpc

WIRE_ERRORS = [
    errors.InvalidRequest("k is 0; needed 1..10000", field="options.k"),
    errors.Unauthenticated("no token"),
    errors.NotFound("no item 7"),
    errors.AlreadyExists("epoch 3 exists"),
    errors.Overloaded("queue full", retry_after_s=1.25),
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
