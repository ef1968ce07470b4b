"""Writes over gRPC: requests, streams, retries and watermarks of remote shards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import grpc
import pytest

from nearline import contract as c, status
from nearline.calls.guard import Context
from nearline.clients import RetrievalClient
from nearline.errors import InvalidRequest, NotReady, SnapshotMismatch, Unsupported
from nearline.internal.v1 import shard_pb2_grpc
from nearline.serving import Registration, running
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc, snapshot_pb2
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.protocols.watermark import Watermark
from retrieval.router.service import RetrievalService
from retrieval.router.servicer import RetrievalServicer
from retrieval.shards.client import ShardClient, ShardKey
from retrieval.shards.loader import LoadedShard
from retrieval.shards.local_shard import LocalShard
from retrieval.shards.replicas.replica import Replica
from retrieval.shards.replicas.replicated_shard import ReplicatedShard
from retrieval.shards.servicer import ShardServicer
from tests.retrieval.writable_collection import (
    DIM,
    SNAPSHOT,
    DictShard,
    Written,
    written,
)

pytestmark = pytest.mark.service


def registration(servicer: RetrievalServicer) -> Registration:
    return Registration(
        "nearline.v1.RetrievalService",
        lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server),
    )


@contextlib.asynccontextmanager
async def serving(here: Written) -> AsyncIterator[RetrievalClient]:
    async with (
        running([registration(RetrievalServicer(here.service, writer=here.writer))]) as address,
        RetrievalClient(address) as client,
    ):
        yield client


async def batches_of(*sizes: int) -> AsyncIterator[Sequence[c.Item]]:
    for number, size in enumerate(sizes):
        yield [c.Item(id=f"{number}-{n}", text="red") for n in range(size)]


async def test_an_item_submitted_before_the_last_change_is_ignored() -> None:
    here = written()
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)
    async with serving(here) as client:

        async def upsert(text: str, time: datetime) -> str:
            items = [c.Item(id="a", text=text)]
            reply = await client.upsert_items(items, as_of={"a": time}, lane=c.Lane.BULK)
            return reply.results[0].outcome.value

        assert await upsert("blue", late) == "applied"
        assert [await upsert("blue", late), await upsert("red", early)] == [
            "unchanged",
            "superseded",
        ]
        assert (await client.get_items(["a"])).items[0].text == "blue"
        # The clock of Redis, which gives these times, may be ahead of the router's.
        ahead = datetime.now(UTC) + timedelta(minutes=10)
        assert await upsert("green", ahead) == "replaced"
        with pytest.raises(InvalidRequest, match="submitted, between 1970 and now"):
            await upsert("red", datetime(2222, 1, 1, tzinfo=UTC))
        with pytest.raises(InvalidRequest, match="as_of names item 'b', which is not in items"):
            await client.upsert_items([c.Item(id="a", text="red")], as_of={"b": early})
        with pytest.raises(InvalidRequest, match="as_of requires whole items"):
            attributes = [c.Item(id="a", attributes={"year": 1})]
            await client.upsert_items(attributes, only_attributes=True, as_of={"a": early})


async def test_an_item_does_not_grow_without_bound_by_changes_of_its_attributes() -> None:
    here = written()
    text = "a" * (c.MAX_ATTRIBUTES_BYTES // 2 - 10)
    async with serving(here) as client:

        async def set_attributes(**attributes: str | None) -> tuple[str, str]:
            items = [c.Item(id="a", attributes=attributes)]
            (done,) = (await client.upsert_items(items, only_attributes=True)).results
            return done.outcome.value, done.message

        await client.upsert_items([c.Item(id="a", text="red")])
        assert (await set_attributes(one=text))[0] == "replaced"
        assert (await set_attributes(two=text))[0] == "replaced"
        outcome, message = await set_attributes(three=text)
        assert outcome == "rejected" and "more than 1048576 bytes" in message
        assert (await set_attributes(two="b"))[0] == "replaced"
        assert (await set_attributes(one=None, three=text))[0] == "replaced"
        (item,) = (await client.get_items(["a"])).items
        assert item.attributes == {"two": "b", "three": text}


async def test_errors_keep_their_class_over_the_wire() -> None:
    here = written()
    async with serving(here) as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.upsert_items([c.Item(id="a", text="x")] * 2)
        assert caught.value.field == "items"
        other = Watermark("b" * 32).encode()
        with pytest.raises(SnapshotMismatch, match="omit the watermark"):
            await client.get_items(["a"], min_watermark=other)
        here.log.away = True
        # No channel of ours, which would ask again.
        async with grpc.aio.insecure_channel(client.address) as channel:
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as away:
                await stub.DeleteItems(retrieval_pb2.DeleteItemsRequest(ids=["a"]))
        error = status.from_rpc_error(away.value, client.address)
        assert type(error) is NotReady and error.retry_after_s == 2.0
    async with (
        running([registration(RetrievalServicer(RetrievalService(Embedders({}))))]) as address,
        RetrievalClient(address) as client,
    ):
        with pytest.raises(Unsupported, match="--redis"):
            await client.delete_items(["a"])
        with pytest.raises(Unsupported, match="--redis"):
            await client.upsert_batches(batches_of(1))


async def test_a_repeated_write_takes_effect_once() -> None:
    here = written()

    class LosesAnswers(RetrievalServicer):
        """Carries out the write, but reports a failure the first time."""

        keys: list[str]

        async def UpsertItems(
            self, request: retrieval_pb2.UpsertItemsRequest, context: Context
        ) -> retrieval_pb2.UpsertItemsResponse:
            reply = await super().UpsertItems(request, context)
            self.keys.append(request.idempotency_key)
            if len(self.keys) == 1:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
            return reply

    servicer = LosesAnswers(here.service, writer=here.writer)
    servicer.keys = []
    async with (
        running([registration(servicer)]) as address,
        RetrievalClient(address) as client,
    ):
        done = await client.upsert_items([c.Item(id="a", text="red")], if_versions={"a": 0})
        assert [one.outcome for one in done.results] == [c.WriteOutcome.APPLIED]
        assert servicer.keys[0] == servicer.keys[1] and len(servicer.keys[0]) == 32
        await client.upsert_items([c.Item(id="a", text="red")], idempotency_key="mine")
        assert servicer.keys[2:] == ["mine"]


async def test_a_failing_stream_names_the_batch_and_ends_at_once() -> None:
    here = written()
    read = 0

    async def endless() -> AsyncIterator[Sequence[c.Item]]:
        nonlocal read
        while True:
            read += 1
            yield [c.Item(id="a", text="red")] * (1 + (read == 3))

    async with serving(here) as client, asyncio.timeout(20):
        with pytest.raises(InvalidRequest, match=r"batch 3: .*durable before it: 2 items"):
            await client.upsert_batches(endless())

        async def broken() -> AsyncIterator[Sequence[c.Item]]:
            yield [c.Item(id="b", text="red")]
            raise ValueError("of the caller")

        with pytest.raises(ValueError, match="of the caller"):
            await client.upsert_batches(broken())


async def test_a_stream_writes_one_collection() -> None:
    here = written()
    async with running(
        [registration(RetrievalServicer(here.service, writer=here.writer))]
    ) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
            requests = [
                retrieval_pb2.DeleteItemsStreamRequest(
                    request=retrieval_pb2.DeleteItemsRequest(collection=name, ids=["a"])
                )
                for name in ("default", "other")
            ]
            with pytest.raises(grpc.aio.AioRpcError, match="batch 2: it names collection 'other'"):
                await stub.DeleteItemsStream(iter(requests))


class Host:
    """A shard host for `ShardServicer` over a dict of shards."""

    def __init__(self, shards: Sequence[DictShard]) -> None:
        snapshot = SnapshotRef(
            collection="default", epoch=1, manifest=snapshot_pb2.Manifest(dim=DIM)
        )
        self.loaded = {
            number: LoadedShard(
                snapshot=snapshot, number=number, shard=cast(LocalShard, shard), vocabulary=None
            )
            for number, shard in enumerate(shards)
        }

    @contextlib.contextmanager
    def shards(
        self, collection: str, snapshot_id: str, number: int
    ) -> Iterator[Mapping[int, LoadedShard]]:
        yield self.loaded


@contextlib.asynccontextmanager
async def shards_apart(here: Written, copies: int = 1) -> AsyncIterator[list[Replica[ShardClient]]]:
    """Serves all shards on each of several servers."""
    servicer = ShardServicer(Host(here.shards))  # type: ignore[arg-type]
    kind = Registration(
        "nearline.internal.v1.ShardService",
        lambda server: shard_pb2_grpc.add_ShardServiceServicer_to_server(servicer, server),
    )
    async with contextlib.AsyncExitStack() as stack:
        replicas = []
        for _ in range(copies):
            address = await stack.enter_async_context(running([kind]))
            replica = Replica(await stack.enter_async_context(ShardClient(address)))
            keys = [ShardKey("default", SNAPSHOT, number) for number in range(len(here.shards))]
            replica.shards = dict.fromkeys(keys)
            replica.health.record_status()
            replicas.append(replica)
        here.served.shards = tuple(
            ReplicatedShard(replicas, "default", number) for number in range(len(here.shards))
        )
        yield replicas
