"""Ways to run a service: as an object, behind gRPC, with replicas of shards, after live changes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.internal.v1 import change_pb2
from nearline.serving import Registration, running
from nearline.store.snapshot import Store
from nearline.v1 import retrieval_pb2_grpc
from retrieval.embedders.endpoints import Embedders
from retrieval.live.live_changes import LiveChanges
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.rollout.collections import ServedCollections
from retrieval.router.service import RetrievalService
from retrieval.router.servicer import RetrievalServicer
from retrieval.search.collection import ServedCollection
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.provider import ShardProvider
from retrieval.shards.replicas.remote_provider import RemoteShardProvider
from retrieval.shards.servicer import ShardServicer, registrations
from retrieval.shards.shard_host import ShardHost
from retrieval.writes.writer import Writer
from tests.retrieval.changelog.memory_log import MemoryLog

OBJECT, BEHIND_GRPC, SHARDS_APART = "object", "gRPC", "gRPC, shards behind gRPC"
MODES = (OBJECT, BEHIND_GRPC, SHARDS_APART)
REPLICAS, LIVE = "gRPC, two replicas of each shard", "after live changes"


@contextlib.asynccontextmanager
async def opened(
    mode: str,
    store: Path,
    embedder: c.Embedder,
    price_limits: Sequence[tuple[str, int]] = (),
) -> AsyncIterator[c.Retriever]:
    """Serves all collections of a store in one of MODES."""
    service = RetrievalService(Embedders({"here": embedder}), price_limits=lambda: price_limits)
    async with contextlib.AsyncExitStack() as stack:
        local = LocalShardProvider(Store(store), 2)
        stack.push_async_callback(local.close)
        hosting: ShardProvider = local
        if mode in (SHARDS_APART, REPLICAS):
            host = ShardHost(Store(store), local)
            stack.push_async_callback(host.close)
            await host.start()
            addresses = [
                await stack.enter_async_context(running([shard_registration(host)]))
                for _ in range(1 + (mode == REPLICAS))
            ]
            hosting = RemoteShardProvider(dict.fromkeys(range(4), addresses), 10.0)
            stack.push_async_callback(hosting.close)
        for snapshot in read_current_snapshots(Store(store), ()):
            service.serve(ServedCollection(snapshot, await hosting.prepare(snapshot)))
        if mode == OBJECT:
            yield service
            return
        registration = Registration(
            "nearline.v1.RetrievalService",
            lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(
                RetrievalServicer(service), server
            ),
        )
        address = await stack.enter_async_context(running([registration]))
        yield await stack.enter_async_context(RetrievalClient(address))


@contextlib.asynccontextmanager
async def opened_after_changes(
    store: Path, items: Sequence[c.Item], gone: Iterable[str], embedder: c.Embedder
) -> AsyncIterator[c.Retriever]:
    """Serves all collections of a store; writes some items to each, and deletes others."""
    names = Store(store).collections()
    logs = {name: MemoryLog() for name in names}
    for name, log in logs.items():
        record = change_pb2.LogRecord(number=1, log_id=log.log_id)
        Store(store).create_log_record(name, record)
        Store(store).mark_log_ready(name, 1)
    embedders = Embedders({"here": embedder})
    live = LiveChanges(Store(store), logs.__getitem__, embedders=embedders)
    hosting = LocalShardProvider(Store(store), 2, live=live)
    collections = ServedCollections()
    service = RetrievalService(embedders, collections)
    writer = Writer(collections, embedders, logs.__getitem__)
    try:
        for snapshot in read_current_snapshots(Store(store), ()):
            service.serve(ServedCollection(snapshot, await hosting.prepare(snapshot)))
        for name in names:
            written = await writer.upsert_items(items, collection=name)
            outcomes = {one.outcome for one in written.results}
            assert outcomes <= {c.WriteOutcome.APPLIED, c.WriteOutcome.REPLACED}, written.results
            deleted = await writer.delete_items([*gone], collection=name)
            await service.count_items(
                collection=name, min_watermark=deleted.watermark, timeout_s=10.0
            )
        yield service
    finally:
        await hosting.close()


def shard_registration(host: ShardHost) -> Registration:
    return registrations(ShardServicer(host))[0]
