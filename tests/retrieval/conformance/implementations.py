"""Implementations of the shard protocol that the conformance suite tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import pytest

from nearline.serving import running
from nearline.store.snapshot import Store
from retrieval.index import legs
from retrieval.index.gpu.gpu_pool import GpuPool
from retrieval.protocols.shard import Shard
from retrieval.protocols.snapshot import SnapshotRef, read_current_snapshots
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.provider import ShardProvider
from retrieval.shards.replicas.remote_provider import RemoteShardProvider
from retrieval.shards.shard_host import ShardHost
from tests.milvus.fixtures import servers
from tests.retrieval.index.gpu.devices import cpu_device
from tests.retrieval.service_modes import shard_registration

SMALL, LARGE = "small", "large"


@dataclass(frozen=True, slots=True)
class Held:
    """A loaded snapshot with one shard.

    lacks: What it answers with Unsupported: modes, by the names of `SearchMode`, an "exact" search
    of a graph, "grouping", "boosts" or "facets".
    """

    shard: Shard
    snapshot_id: str
    lacks: frozenset[str] = frozenset()


Opened = AbstractAsyncContextManager[Held]


@contextlib.asynccontextmanager
async def local(store: Path, collection: str, uri: str) -> AsyncIterator[Held]:
    """FAISS in this process."""
    async with contextlib.AsyncExitStack() as stack:
        shards = LocalShardProvider(Store(store), 2)
        stack.push_async_callback(shards.close)
        yield await _held(shards, store, collection)


@contextlib.asynccontextmanager
async def on_gpu(store: Path, collection: str, uri: str) -> AsyncIterator[Held]:
    """FAISS in this process, with the vectors in a process for a GPU; it computes on the CPU."""
    async with contextlib.AsyncExitStack() as stack:
        # The CPU would answer filters with few matches.
        stack.enter_context(patch.object(legs, "_FEW_MATCHES", 0))
        device = await asyncio.to_thread(cpu_device)
        shards = LocalShardProvider(Store(store), 2, gpus=GpuPool([device]))
        stack.push_async_callback(shards.close)
        held = await _held(shards, store, collection)
        yield held
        assert not device.reason


@contextlib.asynccontextmanager
async def remote(store: Path, collection: str, uri: str) -> AsyncIterator[Held]:
    """FAISS on a shard server, called over gRPC."""
    async with contextlib.AsyncExitStack() as stack:
        shards = LocalShardProvider(Store(store), 2)
        stack.push_async_callback(shards.close)
        host = ShardHost(Store(store), shards)
        stack.push_async_callback(host.close)
        await host.start()
        address = await stack.enter_async_context(running([shard_registration(host)]))
        hosting = RemoteShardProvider({0: (address,)}, 10.0)
        stack.push_async_callback(hosting.close)
        yield await _held(hosting, store, collection)


@contextlib.asynccontextmanager
async def milvus(store: Path, collection: str, uri: str) -> AsyncIterator[Held]:
    """A Milvus that the collection is written to; the small one into an index that scans."""
    # Imported late: its client may not be installed.
    from index_builder.indexes.milvus_writer import export
    from retrieval.milvus.client import MilvusClient
    from retrieval.milvus.collection_state import CollectionStates
    from retrieval.milvus.layout import collection_name
    from retrieval.milvus.provider import MilvusShardProvider

    async with contextlib.AsyncExitStack() as stack:
        client = MilvusClient(uri, timeout_s=30.0)
        hosting = MilvusShardProvider(Store(store), client)
        stack.push_async_callback(hosting.close)
        (snapshot,) = read_current_snapshots(Store(store), (collection,))
        name = collection_name(collection, snapshot.snapshot_id)
        stack.push_async_callback(client.drop, name)
        stack.push_async_callback(CollectionStates(client).remove, name)
        index = "FLAT" if collection == SMALL else "HNSW"
        await export(Store(store), collection, snapshot.snapshot_id, client, index=index)
        held = await _held(hosting, store, collection)
        able = await client.capabilities()
        lacks = {"exact", "grouping", "boosts", "facets"}
        lacks |= set() if able.words else {"lexical", "hybrid"}
        yield replace(held, lacks=frozenset(lacks))


@dataclass(frozen=True, slots=True)
class Implementation:
    """An implementation of the shard protocol.

    opened: Opens a collection of a store, with the address of a server where it needs one.
    server: Which, see `servers`; empty: it needs none. recall_at_10: Least mean recall where an
    index is searched.
    """

    opened: Callable[[Path, str, str], Opened]
    server: str = ""
    recall_at_10: float = 0.95


IMPLEMENTATIONS = {
    "FAISS": Implementation(local),
    "FAISS on a GPU": Implementation(on_gpu, recall_at_10=1.0),
    "FAISS over gRPC": Implementation(remote),
    **{f"Milvus {one}": Implementation(milvus, one) for one in servers()},
}
PARAMETERS = [
    pytest.param(name, marks=[pytest.mark.milvus] if one.server else [])
    for name, one in IMPLEMENTATIONS.items()
]


async def _held(hosting: ShardProvider, store: Path, collection: str) -> Held:
    snapshot: SnapshotRef
    (snapshot,) = read_current_snapshots(Store(store), (collection,))
    shards: Sequence[Shard] = await hosting.prepare(snapshot)
    return Held(shards[0], snapshot.snapshot_id)
