"""Ways to run the same service: as an object, behind gRPC, with its shards behind gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.serving import Registration, running
from nearline.store.snapshot import Store
from nearline.v1 import retrieval_pb2_grpc
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.router.service import RetrievalService
from retrieval.router.servicer import RetrievalServicer
from retrieval.search.collection import ServedCollection
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.provider import ShardProvider
from retrieval.shards.replicas.remote_provider import RemoteShardProvider
from retrieval.shards.servicer import ShardServicer, registrations
from retrieval.shards.shard_host import ShardHost

OBJECT, BEHIND_GRPC, SHARDS_APART = "object", "gRPC", "gRPC, shards behind gRPC"
MODES = (OBJECT, BEHIND_GRPC, SHARDS_APART)


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
        if mode == SHARDS_APART:
            host = ShardHost(Store(store), local)
            stack.push_async_callback(host.close)
            await host.start()
            address = await stack.enter_async_context(running([shard_registration(host)]))
            hosting = RemoteShardProvider({number: (address,) for number in range(4)}, 10.0)
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


def shard_registration(host: ShardHost) -> Registration:
    return registrations(ShardServicer(host))[0]
