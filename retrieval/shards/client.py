"""Client of a shard server over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nearline import wire
from nearline.channel import ServiceChannel
from nearline.contract import Filter, PayloadField
from nearline.v1 import shard_pb2, shard_pb2_grpc
from retrieval.live.progress import ShardProgress
from retrieval.protocols.shard import (
    ShardCounts,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.watermark import Watermark
from retrieval.shards import codec
from retrieval.shards.codec import progress_from_proto

# Default timeout of a call without a deadline: a server that hangs must not block a slot forever.
_DEFAULT_TIMEOUT_S = 10.0
# Large shards take minutes to read; the router gives up earlier if the server goes away.
_LOAD_TIMEOUT_S = 3_600.0


class ShardKey(NamedTuple):
    """Identifies one shard of one snapshot."""

    collection: str
    snapshot_id: str
    shard: int


class ShardClient(ServiceChannel):
    """A channel to a shard server, which may hold several shards.

    Every method raises the errors of the server; NotReady if the server cannot be reached.

    Args:
        address: "host:port" of the server, or a target like "dns:///name:port".
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = shard_pb2_grpc.ShardServiceStub(self.grpc_channel)

    async def status(self, timeout_s: float) -> Mapping[ShardKey, ShardProgress | None]:
        """Returns the ready shards of the server, with the progress of live changes in each.

        The progress is None if the server follows no change log.
        """
        request = shard_pb2.GetStatusRequest()
        reply = await self.call(lambda: self._stub.GetStatus(request, timeout=timeout_s))
        return {
            ShardKey(one.collection, one.snapshot_id, one.shard): progress_from_proto(one)
            for one in reply.shards
            if one.ready
        }

    async def load(self, collection: str, snapshot_id: str) -> None:
        """Makes the server load its shards of a snapshot; returns when they are ready."""
        request = shard_pb2.LoadSnapshotRequest(collection=collection, snapshot_id=snapshot_id)
        await self.call(lambda: self._stub.LoadSnapshot(request, timeout=_LOAD_TIMEOUT_S))

    async def search(
        self, key: ShardKey, queries: ShardQueries, options: ShardOptions, deadline: float | None
    ) -> Sequence[ShardHits]:
        """Searches; see `Shard.search`."""
        request = shard_pb2.SearchShardRequest(
            **key._asdict(),
            options=codec.options_to_proto(options),
        )
        codec.fill_queries(request, queries)
        reply = await self.call(
            lambda: self._stub.SearchShard(request, timeout=time_left_s(deadline))
        )
        return codec.hits_from_proto(reply)

    async def fetch(
        self,
        key: ShardKey,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        deadline: float | None,
        chunks: Sequence[int],
        min_watermark: Watermark | None,
        filter: Filter | None,
    ) -> ShardItems:
        """Reads items; see `Shard.fetch`."""
        request = shard_pb2.FetchItemsRequest(
            **key._asdict(),
            ids=ids,
            payload=wire.payload_to_proto(payload),
            chunks=chunks,
            filter=None if filter is None else wire.filter_to_proto(filter),
            min_watermark=codec.watermark_to_bytes(min_watermark),
        )
        return codec.items_from_proto(
            await self.call(lambda: self._stub.FetchItems(request, timeout=time_left_s(deadline)))
        )

    async def scan(
        self,
        key: ShardKey,
        after_id: str,
        limit: int,
        filter: Filter | None,
        payload: frozenset[PayloadField],
        deadline: float | None,
        min_watermark: Watermark | None,
    ) -> ShardItems:
        """Lists items; see `Shard.scan`."""
        request = shard_pb2.ScanItemsRequest(
            **key._asdict(),
            after_id=after_id,
            limit=limit,
            filter=None if filter is None else wire.filter_to_proto(filter),
            payload=wire.payload_to_proto(payload),
            min_watermark=codec.watermark_to_bytes(min_watermark),
        )
        return codec.items_from_proto(
            await self.call(lambda: self._stub.ScanItems(request, timeout=time_left_s(deadline)))
        )

    async def count(
        self,
        key: ShardKey,
        filter: Filter | None,
        fields: Sequence[str],
        deadline: float | None,
        min_watermark: Watermark | None,
    ) -> ShardCounts:
        """Counts items; see `Shard.count`."""
        request = shard_pb2.CountShardRequest(
            **key._asdict(),
            filter=None if filter is None else wire.filter_to_proto(filter),
            fields=fields,
            min_watermark=codec.watermark_to_bytes(min_watermark),
        )
        return codec.counts_from_proto(
            await self.call(lambda: self._stub.CountShard(request, timeout=time_left_s(deadline)))
        )


def time_left_s(deadline: float | None) -> float:
    """Returns the timeout of a call with a deadline in loop time, in seconds; always positive."""
    if deadline is None:
        return _DEFAULT_TIMEOUT_S
    return max(1e-3, deadline - asyncio.get_running_loop().time())
